-- Deletes what was noted about jobs that are gone.
with timeouts as (
    delete from {schema}._private_py_timeouts as t
    where not exists (select from {schema}._private_jobs as j where j.id = t.job_id)
)
delete from {schema}._private_py_progress as p
where not exists (select from {schema}._private_jobs as j where j.id = p.job_id)
