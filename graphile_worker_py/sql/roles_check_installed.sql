-- The rest is about tables, which have to be there.
do $graphile_worker_py$
begin
  if not exists (
    select from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = {schema_name} and c.relname = '_private_jobs'
  ) then
    raise exception 'schema % is not installed in this database: run graphile-worker-py migrate first', {schema_name}
      using errcode = 'GWROL', hint = 'Or let a migrator do it: graphile-worker-py roles --create-schema.';
  end if;
end
$graphile_worker_py$
