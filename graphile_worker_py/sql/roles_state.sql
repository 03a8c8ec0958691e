-- Whether the schema is installed, and who owns its tables, if that is not a superuser, who needs no grants.
select r.rolname::text, r.rolsuper
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_roles as r on r.oid = c.relowner
where n.nspname = %(schema)s::name and c.relname = '_private_jobs'
