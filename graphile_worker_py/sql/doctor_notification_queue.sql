-- How full the queue of notifications is, and the oldest transaction of the server, for a session that listens and
-- does not end its transaction is what fills it.
select pg_notification_queue_usage(), oldest.pid, oldest.application_name,
    format('select pg_terminate_backend(%s)', oldest.pid)
from (values (1)) as one (row)
left join (
    select a.pid, a.application_name
    from pg_catalog.pg_stat_activity as a
    where a.xact_start is not null and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
    order by a.xact_start
    limit 1
) as oldest on true
