-- The bytes of each of our indexes, and an estimate of what its entries would take in a new one: 12 bytes for each and its
-- columns, pages two thirds full. How wide texts are is known from the statistics, else taken to be 64 bytes. Indexes
-- that have doubled since they were last counted are left out.
select i.relname::text, pg_relation_size(i.oid), (8192 + greatest(i.reltuples, 0) * (12 + columns.width) * 1.5)::float8,
    format('reindex index concurrently %I.%I', n.nspname, i.relname)
from pg_catalog.pg_index as x
join pg_catalog.pg_class as i on i.oid = x.indexrelid
join pg_catalog.pg_class as t on t.oid = x.indrelid
join pg_catalog.pg_namespace as n on n.oid = t.relnamespace
cross join lateral (
    select sum(case
        when a.attlen > 0 then greatest(a.attlen, 4)
        else 4 + coalesce((
            select s.avg_width
            from pg_catalog.pg_stats as s
            where s.schemaname = n.nspname and s.tablename = t.relname and s.attname = a.attname
        ), 64)
    end) as width
    from pg_catalog.pg_attribute as a
    where a.attrelid = i.oid
) as columns
where n.nspname = %(schema)s::name and starts_with(t.relname::text, '_private_') and i.reltuples >= 0
    and i.relpages > pg_relation_size(i.oid) / 8192 / 2
order by i.relname
