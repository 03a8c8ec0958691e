-- The bytes of each of our indexes, and an estimate of what its entries would take in a new one: 12 bytes for each
-- and its columns, pages two thirds full. How wide texts are is known from the statistics, else taken to be 64
-- bytes. Indexes that have doubled since they were last counted are left out. Only those of the schema are asked for
-- their size.
with indexes as materialized (
    select i.oid, i.relname, i.relpages, i.reltuples, n.nspname, t.relname as table_name
    from pg_catalog.pg_namespace as n
    join pg_catalog.pg_class as t on t.relnamespace = n.oid
    join pg_catalog.pg_index as x on x.indrelid = t.oid
    join pg_catalog.pg_class as i on i.oid = x.indexrelid
    where n.nspname = %(schema)s::name and starts_with(t.relname::text, '_private_') and i.reltuples >= 0
), sized as materialized (
    select i.*, pg_relation_size(i.oid) as bytes from indexes as i
)
select i.relname::text, i.bytes, (8192 + i.reltuples * (12 + columns.width) * 1.5)::float8,
    format('reindex index concurrently %I.%I', i.nspname, i.relname)
from sized as i
cross join lateral (
    select sum(case
        when a.attlen > 0 then greatest(a.attlen, 4)
        else 4 + coalesce((
            select s.avg_width
            from pg_catalog.pg_stats as s
            where s.schemaname = i.nspname and s.tablename = i.table_name and s.attname = a.attname
        ), 64)
    end) as width
    from pg_catalog.pg_attribute as a
    where a.attrelid = i.oid
) as columns
where i.relpages > i.bytes / 8192 / 2
order by i.relname
