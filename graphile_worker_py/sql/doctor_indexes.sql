-- Indexes that are not there, and those that a failed build has left unusable, with what mends the latter.
select name, false, null
from unnest(array['jobs_main_index', 'jobs_no_queue_index', 'jobs_pkey1', 'jobs_key_key1']) as wanted (name)
where not exists (
    select
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = %(schema)s::name and c.relname = name and c.relkind = 'i'
)
union all
select c.relname, true,
    format(
        case when c.relname ~ '_cc(new|old)[0-9]*$' then 'drop' else 'reindex' end || ' index concurrently %I.%I',
        n.nspname, c.relname
    )
from pg_catalog.pg_index as i
join pg_catalog.pg_class as c on c.oid = i.indexrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = %(schema)s::name and not (i.indisvalid and i.indisready)
order by 1
