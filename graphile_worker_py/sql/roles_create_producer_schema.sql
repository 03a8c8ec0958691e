-- A schema for the producer, which gets no right in that of the tables.
do $graphile_worker_py$
begin
  if not exists (select from pg_namespace as n where n.nspname = {producer_schema_name}) then
    create schema {producer_schema} authorization {owner};
  end if;
end
$graphile_worker_py$
