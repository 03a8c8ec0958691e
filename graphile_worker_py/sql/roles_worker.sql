-- A worker reads and writes rows, of tables that later migrations bring too; it changes neither tables nor ledgers.
-- It calls functions also where these are not, as by default, for everybody.
do $graphile_worker_py$
declare
  relation record;
begin
  revoke all on schema {schema} from public, {worker};
  revoke all on all tables in schema {schema} from {worker};
  grant usage on schema {schema} to {worker};
  for relation in
    select c.oid::regclass as name, c.relname ~ 'migrations$' or c.relkind <> 'r' as is_read
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = {schema_name}
      and c.relkind in ('r', 'v', 'S')
      and (c.relname ~ '^_private_' or c.relname in ('migrations', 'jobs') or c.relkind = 'S')
  loop
    execute format(
      'grant %s on %s to %I',
      case when relation.is_read then 'select' else 'select, insert, update, delete' end, relation.name, {worker_name}
    );
  end loop;
  for relation in
    select p.oid::regprocedure as name
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = {schema_name}
      and p.proname in (
        'add_job', 'add_jobs', 'remove_job', 'complete_jobs', 'permanently_fail_jobs', 'reschedule_jobs',
        'force_unlock_workers'
      )
  loop
    execute format('grant execute on function %s to %I', relation.name, {worker_name});
  end loop;
  alter default privileges in schema {schema} grant select, insert, update, delete on tables to {worker};
end
$graphile_worker_py$
