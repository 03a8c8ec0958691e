-- Again as the role that runs this.
do $graphile_worker_py$
begin
  perform set_config('role', current_setting('graphile_worker_py.runner'), true);
end
$graphile_worker_py$
