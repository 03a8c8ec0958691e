-- The highest number in the ledger, the highest that is breaking, and whether the tables are there, all as of one
-- moment. Through JSON, because the column "breaking" may be missing; then nothing is known to break.
select
    max(m.id),
    max(m.id) filter (where (to_jsonb(m) ->> 'breaking')::boolean),
    exists (
        select from pg_catalog.pg_class as c
        join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = %(schema)s::name and c.relname = '_private_jobs'
    )
from {schema}.migrations as m
