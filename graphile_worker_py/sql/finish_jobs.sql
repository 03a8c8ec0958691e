-- Deletes finished jobs and frees their queues, only where `holder` still holds them; returns the ids it deleted.
with done as (
    delete from {schema}._private_jobs
    where id = any (%(ids)s::bigint[]) and locked_by = %(holder)s::text
    returning id, job_queue_id
), freed as (
    update {schema}._private_job_queues
    set locked_at = null, locked_by = null
    where id = any (array(select job_queue_id from done where job_queue_id is not null))
        and locked_by = %(holder)s::text
)
select id from done
