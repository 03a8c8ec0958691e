-- Prepared transactions of this database, which outlive their sessions and restarts, the oldest first.
select p.gid, p.owner::text, extract(epoch from clock_timestamp() - p.prepared)::float8,
    format('rollback prepared %L', p.gid)
from pg_catalog.pg_prepared_xacts as p
where p.database = current_database() and p.prepared < clock_timestamp() - make_interval(secs => %(seconds)s::float8)
order by p.prepared
limit 5
