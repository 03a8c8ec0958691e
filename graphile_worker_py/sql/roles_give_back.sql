-- The end of that membership.
do $graphile_worker_py$
begin
  if current_setting('graphile_worker_py.borrowed', true) = 'yes' then
    revoke {owner} from current_user;
  end if;
end
$graphile_worker_py$
