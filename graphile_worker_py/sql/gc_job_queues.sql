-- Drops queues that are free and have no job, and says how many.
with gone as (
    delete from {schema}._private_job_queues as q
    where q.locked_at is null
        and not exists (select from {schema}._private_jobs as j where j.job_queue_id = q.id)
    returning 1
)
select count(*) from gone
