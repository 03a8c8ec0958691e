-- What can be told of the jobs without reading one: the time, whether the server is a standby and since when it runs, its
-- version, how many pages the table has, whether this role may read it (and is shown rows of it), the last id that was given
-- out, and how many rows were deleted, which a standby does not count. No row where there is no such table.
-- As in all of these statements, the last column is for how many seconds the server was at work on it.
select clock_timestamp(), pg_is_in_recovery(), pg_postmaster_start_time(), current_setting('server_version_num')::integer,
    pg_relation_size(c.oid) / current_setting('block_size')::bigint,
    (
        select count(*) = 13 and bool_and(has_column_privilege(c.oid, a.attnum, 'select'))
        from pg_attribute as a
        where a.attrelid = c.oid
            and a.attname in (
                'ctid', 'id', 'task_id', 'priority', 'run_at', 'attempts', 'max_attempts', 'last_error', 'created_at',
                'updated_at', 'locked_at', 'locked_by', 'is_available'
            )
    ) and (
        not row_security_active(c.oid)
        or exists (
            select from pg_policy as p
            where p.polrelid = c.oid and p.polcmd in ('r', '*')
                and (0 = any (p.polroles) or exists (select from unnest(p.polroles) as r (oid) where pg_has_role(r.oid, 'usage')))
        )
    ),
    (
        select max(
            case when s.relkind = 'S' then
                case when has_sequence_privilege(s.oid, 'usage, select') then coalesce(pg_sequence_last_value(s.oid), 0) end
            end
        )
        from pg_depend as d
        join pg_class as s on s.oid = d.objid
        where d.refobjid = c.oid and d.refclassid = 'pg_class'::regclass and d.classid = 'pg_class'::regclass
            and d.deptype = 'i'
    ),
    case
        when not pg_is_in_recovery() and current_setting('track_counts')::boolean then pg_stat_get_tuples_deleted(c.oid)
    end,
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from pg_class as c
join pg_namespace as n on n.oid = c.relnamespace
where n.nspname = %(schema)s::text and c.relname = '_private_jobs'
