-- A producer may call these two functions, and nobody else may; the guard is for them alone. What it was granted on the
-- tables before it became one is taken back.
do $graphile_worker_py$
begin
  revoke all on all tables in schema {schema} from {producer};
  revoke all on all functions in schema {schema} from {producer};
  revoke all on schema {schema} from {producer};
  revoke all on all functions in schema {producer_schema} from public;
  revoke all on schema {producer_schema} from public;
  grant usage on schema {producer_schema} to {producer};
  grant select on all tables in schema {producer_schema} to {producer};
  grant execute on function
    {producer_schema}.add_job(text, json, text, timestamptz, integer, text, integer, text[], text),
    {producer_schema}.add_jobs({producer_schema}.job_spec[], boolean)
    to {producer};
end
$graphile_worker_py$
