-- add_job for a producer, with the owner's rights. What comes back is what was sent, never the payload or the error of a
-- job that was there before: nor in the context of an error, which quotes what cannot be merged. Only where there may be
-- something to merge is such an error waited for, which takes a subtransaction.
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
  if add_job.job_key is null or json_typeof(add_job.payload) is distinct from 'array' then
    job := {schema}.add_job(
      add_job.identifier, add_job.payload, add_job.queue_name, add_job.run_at, add_job.max_attempts,
      add_job.job_key, add_job.priority, add_job.flags, add_job.job_key_mode
    );
  else
    begin
      job := {schema}.add_job(
        add_job.identifier, add_job.payload, add_job.queue_name, add_job.run_at, add_job.max_attempts,
        add_job.job_key, add_job.priority, add_job.flags, add_job.job_key_mode
      );
    exception when untranslatable_character or invalid_text_representation then
      raise exception 'the payload, or the one it is to be merged with, holds text that cannot be stored'
        using errcode = sqlstate;
    end;
  end if;
  if job.revision > 0 then
    job.payload := coalesce(add_job.payload, '{{}}');
    job.last_error := null;
  end if;
  return job;
end
$graphile_worker_py$
