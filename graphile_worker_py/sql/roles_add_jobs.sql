-- The same for add_jobs.
create or replace function {producer_schema}.add_jobs(
  specs {producer_schema}.job_spec[],
  job_key_preserve_run_at boolean default false
)
returns setof {schema}._private_jobs
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $graphile_worker_py$
declare
  row record;
  job {schema}._private_jobs;
begin
  perform {producer_schema}._private_guard(
    array(select s.identifier from unnest(specs) as s),
    array(select s.job_key from unnest(specs) as s)
  );
  begin
    for row in
      select a.job, s.payload
      from (
        select j as job, row_number() over () as place
        from {schema}.add_jobs(
          specs => array(
            select row(
              s.identifier, s.payload, s.queue_name, s.run_at, s.max_attempts, s.job_key, s.priority, s.flags
            )::{schema}.job_spec
            from unnest(specs) with ordinality as s
            order by s.ordinality
          ),
          job_key_preserve_run_at => add_jobs.job_key_preserve_run_at
        ) as j
      ) as a
      left join unnest(specs) as s on s.job_key = (a.job).key
      order by a.place
    loop
      job := row.job;
      if job.revision > 0 then
        job.payload := coalesce(row.payload, '{{}}');
        job.last_error := null;
      end if;
      return next job;
    end loop;
  exception when untranslatable_character or invalid_text_representation then
    raise exception 'a payload, or one that it is to be merged with, holds text that cannot be stored'
      using errcode = sqlstate;
  end;
end
$graphile_worker_py$
