-- The tables have row security, and without a policy nobody but their owner sees a row, whatever is granted. The owner
-- gets one too, for tables on which row security is forced. One that was made when the role was of another kind is
-- replaced.
do $graphile_worker_py$
declare
  policy record;
begin
  for policy in
    select c.oid::regclass as relation, r.*, p.oid is not null as is_there
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    cross join (
      values
        ({owner_name}, 'all', '*', 'with check (true)'),
        ({worker_name}, 'all', '*', 'with check (true)'),
        ({viewer_name}, 'select', 'r', '')
    ) as r (role, command, letter, checks)
    left join pg_policy as p on p.polrelid = c.oid and p.polname = r.role
    where n.nspname = {schema_name}
      and c.relname ~ '^_private_'
      and c.relrowsecurity
      and p.polcmd::text is distinct from r.letter
    order by c.relname = '_private_jobs' desc, c.relname
  loop
    if policy.is_there then
      execute format('drop policy %I on %s', policy.role, policy.relation);
    end if;
    execute format(
      'create policy %I on %s for %s to %I using (true) %s',
      policy.role, policy.relation, policy.command, policy.role, policy.checks
    );
  end loop;
end
$graphile_worker_py$
