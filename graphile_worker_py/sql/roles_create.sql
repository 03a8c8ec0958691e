-- The roles, those that are not there yet. None may log in: grant them to roles that do, as in
--   grant "..._worker" to app;
-- A migrator is a member of the owner without its rights: it has them after SET ROLE only, which `migrate` does.
do $graphile_worker_py$
declare
  name text;
begin
  foreach name in array {roles} loop
    if not exists (select from pg_roles as r where r.rolname = name) then
      execute format('create role %I nologin', name);
      if name = {migrator_name} then
        execute format('alter role %I noinherit', name);
      end if;
    end if;
  end loop;

  if not exists (
    select from pg_auth_members as m
    join pg_roles as o on o.oid = m.roleid
    join pg_roles as r on r.oid = m.member
    where o.rolname = {owner_name} and r.rolname = {migrator_name}
  ) then
    grant {owner} to {migrator};
  end if;
end
$graphile_worker_py$
