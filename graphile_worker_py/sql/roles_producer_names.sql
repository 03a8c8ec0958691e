-- What clients of this library and of Node's look for beside the functions: the type of an argument, the ledger, and two
-- tables of names, which show a producer nothing.
do $graphile_worker_py$
begin
  if not exists (
    select from pg_type as t
    join pg_namespace as n on n.oid = t.typnamespace
    where n.nspname = {producer_schema_name} and t.typname = 'job_spec'
  ) then
    create type {producer_schema}.job_spec as (
      identifier text,
      payload json,
      queue_name text,
      run_at timestamptz,
      max_attempts smallint,
      job_key text,
      priority smallint,
      flags text[]
    );
  end if;
  create or replace view {producer_schema}.migrations as
    select m.id, m.ts, m.breaking from {schema}.migrations as m;
  create or replace view {producer_schema}._private_tasks as
    select null::integer as id, null::text as identifier where false;
  create or replace view {producer_schema}._private_job_queues as
    select null::integer as id, null::text as queue_name where false;
end
$graphile_worker_py$
