-- Gives a job that is not over a limit of its own, in seconds, or with null none; returns a row if there is such a job.
with job as (
    select j.id, j.locked_at
    from {schema}._private_jobs as j
    where j.id = %(id)s::bigint and (j.locked_at is not null or j.attempts < j.max_attempts)
), written as (
    insert into {schema}._private_py_timeouts as t (job_id, seconds)
    select job.id, %(seconds)s::float8 from job
    on conflict (job_id) do update set seconds = excluded.seconds
)
select case when job.locked_at is not null then pg_notify(%(channel)s::text, job.id::text)::text end from job
