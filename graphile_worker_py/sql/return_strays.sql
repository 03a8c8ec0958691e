-- Gives back what `holder` has locked without knowing it: a claim that was carried out, but whose answer got lost. It knows
-- the jobs in `held`, by the claims made at `since`: one of them that was taken from it and claimed anew is a stray, too.
with returned as (
    update {schema}._private_jobs
    set attempts = greatest(0, attempts - 1), locked_at = null, locked_by = null
    where locked_by = %(holder)s::text
        and not (id = any (%(held)s::bigint[]) and locked_at = any (%(since)s::timestamptz[]))
    returning id, job_queue_id
), freed as (
    update {schema}._private_job_queues
    set locked_at = null, locked_by = null
    where id = any (array(select job_queue_id from returned where job_queue_id is not null))
        and locked_by = %(holder)s::text
)
select id from returned
