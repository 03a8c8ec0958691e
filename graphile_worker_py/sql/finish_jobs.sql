-- Deletes finished jobs, only those that `holder` still holds since the claim they come from, and frees the queues of
-- those in `freeing`; returns the ids it deleted. `since` tells two claims of one job by one holder apart.
with done as (
    delete from {schema}._private_jobs as j
    where j.id = any (%(ids)s::bigint[])
        and j.locked_by = %(holder)s::text
        and (j.id, j.locked_at) in (select * from unnest(%(ids)s::bigint[], %(since)s::timestamptz[]))
    returning j.id, j.job_queue_id, j.locked_at
), freed as (
    update {schema}._private_job_queues as q
    set locked_at = null, locked_by = null
    where q.id = any (array(select d.job_queue_id from done as d where d.id = any (%(freeing)s::bigint[])))
        and q.locked_by = %(holder)s::text
        and (q.id, q.locked_at) in (select d.job_queue_id, d.locked_at from done as d)
)
select id from done
