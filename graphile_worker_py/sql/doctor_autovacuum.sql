-- Of each of our tables: whether autovacuum comes to it, whether it has a threshold of its own, and what changes the
-- one and the other.
select c.relname::text,
    coalesce((
        select o.option_value::boolean from pg_options_to_table(c.reloptions) as o where o.option_name = 'autovacuum_enabled'
    ), true),
    exists (select from pg_options_to_table(c.reloptions) as o where o.option_name = 'autovacuum_vacuum_scale_factor'),
    format('alter table %I.%I reset (autovacuum_enabled)', n.nspname, c.relname),
    format(
        'alter table %I.%I set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0)',
        n.nspname, c.relname
    )
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = %(schema)s::name and c.relkind = 'r' and starts_with(c.relname::text, '_private_')
order by c.relname
