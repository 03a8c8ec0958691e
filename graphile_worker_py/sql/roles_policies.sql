-- The tables have row security, and without a policy nobody but their owner sees a row, whatever is granted. The owner
-- gets one too, for tables on which row security is forced.
do $graphile_worker_py$
declare
  policy record;
begin
  for policy in
    select c.oid::regclass as relation, r.*
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    cross join (
      values
        ({owner_name}, 'all', 'with check (true)'),
        ({worker_name}, 'all', 'with check (true)'),
        ({viewer_name}, 'select', '')
    ) as r (role, command, checks)
    where n.nspname = {schema_name}
      and c.relname ~ '^_private_'
      and c.relrowsecurity
      and not exists (select from pg_policy as p where p.polrelid = c.oid and p.polname = r.role)
    order by c.relname = '_private_jobs' desc, c.relname
  loop
    execute format(
      'create policy %I on %s for %s to %I using (true) %s',
      policy.role, policy.relation, policy.command, policy.role, policy.checks
    );
  end loop;
end
$graphile_worker_py$
