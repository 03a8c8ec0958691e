-- Transactions of this database that keep dead rows from being removed, the oldest first: who, and for how many
-- seconds.
select a.pid, a.application_name, a.usename::text, a.state, extract(epoch from clock_timestamp() - a.xact_start)::float8,
    format('select pg_terminate_backend(%s)', a.pid)
from pg_catalog.pg_stat_activity as a
where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
    and (a.backend_xmin is not null or a.backend_xid is not null)
    and a.xact_start < clock_timestamp() - make_interval(secs => %(seconds)s::float8)
order by a.xact_start
limit 5
