-- What follows is done as the owner. Who runs this without being a superuser becomes a member of it for as long as this
-- transaction lasts.
do $graphile_worker_py$
begin
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
