-- How many connections there may be, and how many there are: of the server for ordinary roles, of this database, of
-- this role; the last two bind no superuser. With what raises each.
with sessions as (
    select a.datid, a.usesysid
    from pg_catalog.pg_stat_activity as a
    where a.datid is not null and coalesce(a.backend_type, 'client backend') = 'client backend'
)
select 'server', current_setting('max_connections')::integer
    - current_setting('superuser_reserved_connections')::integer - coalesce(current_setting('reserved_connections', true)::integer, 0), (select count(*) from sessions),
    format('alter system set max_connections = %s', greatest(100, 2 * current_setting('max_connections')::integer))
union all
select 'database', d.datconnlimit, (select count(*) from sessions as s where s.datid = d.oid),
    format('alter database %I connection limit -1', d.datname)
from pg_catalog.pg_database as d
join pg_catalog.pg_roles as r on r.rolname = current_user and not r.rolsuper
where d.datname = current_database() and d.datconnlimit >= 0
union all
select 'role', r.rolconnlimit, (select count(*) from sessions as s where s.usesysid = r.oid),
    format('alter role %I connection limit -1', r.rolname)
from pg_catalog.pg_roles as r
where r.rolname = current_user and r.rolconnlimit >= 0 and not r.rolsuper
