-- Records failures: the error, a later run_at, what is left of a batch; frees the queue. Only where `holder` still holds
-- the job; returns the ids it wrote, each with whether no attempt is left (a taken key ends the attempts, too). Without a delay of its own a job waits e^min(attempts, 10) seconds, as in Node.
-- f is not joined in the usual way round: `id = any` keeps the primary key in use whatever the statistics say.
with f as materialized (
    select *
    from unnest(%(ids)s::bigint[], %(errors)s::text[], %(payloads)s::text[]) as f(id, error, payload)
), failed as (
    update {schema}._private_jobs as j
    set last_error = (select f.error from f where f.id = j.id),
        payload = coalesce((select f.payload::json from f where f.id = j.id), j.payload),
        run_at = greatest(now(), j.run_at) + make_interval(secs => exp(least(j.attempts, 10))),
        locked_at = null,
        locked_by = null
    where j.id = any (%(ids)s::bigint[]) and j.locked_by = %(holder)s::text
    returning j.id, j.job_queue_id, j.attempts >= j.max_attempts as final
), freed as (
    update {schema}._private_job_queues
    set locked_at = null, locked_by = null
    where id = any (array(select job_queue_id from failed where job_queue_id is not null))
        and locked_by = %(holder)s::text
)
select id, final from failed
