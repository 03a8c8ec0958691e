-- Gives back what `holder` has locked without knowing it: a claim that was carried out, but whose answer got lost.
with returned as (
    update {schema}._private_jobs
    set attempts = greatest(0, attempts - 1), locked_at = null, locked_by = null
    where locked_by = %(holder)s::text and id <> all (%(held)s::bigint[])
    returning id, job_queue_id
), freed as (
    update {schema}._private_job_queues
    set locked_at = null, locked_by = null
    where id = any (array(select job_queue_id from returned where job_queue_id is not null))
        and locked_by = %(holder)s::text
)
select id from returned
