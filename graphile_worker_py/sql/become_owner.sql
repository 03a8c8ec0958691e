-- Acts as the role that the schema's tables belong to, or will, until the transaction ends, where this role may: what
-- is made then belongs to it, whoever installs. A role of PostgreSQL's own owns nothing of ours. No row where nothing
-- changes.
select set_config('role', o.rolname::text, true)
from (
    select coalesce(
        (select c.relowner from pg_catalog.pg_class as c where c.relnamespace = n.oid and c.relname = '_private_jobs'),
        n.nspowner
    ) as owner
    from pg_catalog.pg_namespace as n
    where n.nspname = %(schema)s::name
) as s
join pg_catalog.pg_roles as o on o.oid = s.owner
where o.rolname <> current_user
    and o.rolname !~ '^pg_'
    and pg_has_role(
        current_user,
        o.oid,
        case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end
    )
