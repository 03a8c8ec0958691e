-- Gives back claimed jobs that were not started, attempt included, where `holder` still holds them by one of the claims
-- made at `since`; and frees their queues, if asked for. Returns the ids of those that went back. Without `wait`, not those
-- whose row is locked, as by the transaction of a handler that completes it.
with free as materialized (
    select j.id
    from {schema}._private_jobs as j
    where not %(wait)s::boolean and j.id = any (%(ids)s::bigint[])
    for update skip locked
), returned as (
    update {schema}._private_jobs as j
    set attempts = greatest(0, j.attempts - 1), locked_at = null, locked_by = null
    where j.id = any (case when %(wait)s::boolean then %(ids)s::bigint[] else array(select f.id from free as f) end)
        and j.locked_by = %(holder)s::text
        and j.locked_at = any (%(since)s::timestamptz[])
    returning j.id, j.job_queue_id
), freed as (
    update {schema}._private_job_queues as q
    set locked_at = null, locked_by = null
    where %(free_queues)s::boolean
        and q.id = any (array(select r.job_queue_id from returned as r))
        and q.locked_by = %(holder)s::text
        and q.locked_at = any (%(since)s::timestamptz[])
)
select id from returned
