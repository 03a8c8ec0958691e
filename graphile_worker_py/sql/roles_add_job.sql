-- add_job for a producer, with the owner's rights. What comes back is what was sent, never the payload or the error of a
-- job that was there before.
create or replace function {producer_schema}.add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts integer default null,
  job_key text default null,
  priority integer default null,
  flags text[] default null,
  job_key_mode text default 'replace'
)
returns {schema}._private_jobs
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $graphile_worker_py$
declare
  job {schema}._private_jobs;
begin
  perform {producer_schema}._private_guard(array[add_job.identifier], array[add_job.job_key]);
  job := {schema}.add_job(
    identifier => add_job.identifier,
    payload => add_job.payload,
    queue_name => add_job.queue_name,
    run_at => add_job.run_at,
    max_attempts => add_job.max_attempts,
    job_key => add_job.job_key,
    priority => add_job.priority,
    flags => add_job.flags,
    job_key_mode => add_job.job_key_mode
  );
  if job.revision > 0 then
    job.payload := coalesce(add_job.payload, '{{}}');
    job.last_error := null;
  end if;
  return job;
end
$graphile_worker_py$
