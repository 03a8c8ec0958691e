-- Notifies a channel that the connection it goes over listens to: what comes back shows that it still hears.
select pg_notify(%(channel)s::text, '')
