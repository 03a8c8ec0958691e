-- An empty schema, for a migrator to install the tables in.
do $graphile_worker_py$
begin
  if not exists (select from pg_namespace as n where n.nspname = {schema_name}) then
    create schema {schema} authorization {owner};
  end if;
end
$graphile_worker_py$
