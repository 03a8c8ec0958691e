-- The rows of our tables by the statistics, living and dead, and the seconds since they were last vacuumed, null for
-- never.
select s.relname::text, s.n_live_tup, s.n_dead_tup,
    extract(epoch from now() - greatest(s.last_vacuum, s.last_autovacuum))::float8,
    format('vacuum (analyze) %I.%I', s.schemaname, s.relname)
from pg_catalog.pg_stat_all_tables as s
where s.schemaname = %(schema)s::name and starts_with(s.relname::text, '_private_')
order by s.n_dead_tup desc
