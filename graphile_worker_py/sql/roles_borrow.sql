-- What follows is done as the owner. Who runs this without being a superuser becomes a member of it for as long as this
-- transaction lasts. Who that is has to be remembered: it may have become so by `set role`, which `reset role` undoes.
do $graphile_worker_py$
begin
  perform set_config('graphile_worker_py.runner', current_user, true);
  if not pg_has_role(
    current_user,
    {owner_name},
    case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end
  ) then
    grant {owner} to current_user;
    perform set_config('graphile_worker_py.borrowed', 'yes', true);
  end if;
end
$graphile_worker_py$
