-- Takes back what was granted, as far as it is there.
do $graphile_worker_py$
declare
  policy record;
begin
  for policy in
    select p.polname as name, p.polrelid::regclass as relation
    from pg_policy as p
    join pg_class as c on c.oid = p.polrelid
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = {schema_name} and p.polname in ({owner_name}, {worker_name}, {viewer_name})
  loop
    execute format('drop policy %I on %s', policy.name, policy.relation);
  end loop;
  alter default privileges in schema {schema} revoke all on tables from {worker};
  revoke all on all tables in schema {schema} from {worker}, {viewer};
  revoke all on all sequences in schema {schema} from {worker}, {viewer};
  revoke all on all functions in schema {schema} from {worker};
  revoke all on schema {schema} from {worker}, {viewer};
  drop schema if exists {producer_schema} cascade;
end
$graphile_worker_py$
