-- Tables whose rows are hidden from this role, which may nevertheless ask for them: row security holds, and no
-- policy lets it through. It gets no error, it just sees and changes nothing.
select c.relname::text,
    format(
        'create policy %I on %I.%I to %I using (true) with check (true)',
        'all of ' || current_user, n.nspname, c.relname, current_user
    )
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = %(schema)s::name and c.relkind in ('r', 'p') and c.relrowsecurity
    and has_schema_privilege(n.oid, 'usage') and row_security_active(c.oid)
    and exists (
        select
        from (values ('select', 'r'), ('update', 'w'), ('delete', 'd')) as command (privilege, letter)
        where (
                has_table_privilege(c.oid, command.privilege)
                or command.privilege <> 'delete' and has_any_column_privilege(c.oid, command.privilege)
            ) and not exists (
                select
                from pg_catalog.pg_policy as p
                where p.polrelid = c.oid and p.polpermissive and p.polcmd::text in ('*', command.letter)
                    and exists (
                        select from unnest(p.polroles) as r (id) where r.id = 0 or pg_has_role(r.id, 'usage')
                    )
            )
    )
order by c.relname
