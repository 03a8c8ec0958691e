-- Deletes finished jobs, only those that `holder` still holds by one of the claims made at `since`, and frees the queues
-- of those in `freeing`; returns the ids it did not find, none as a rule.
with done as (
    delete from {schema}._private_jobs
    where id = any (%(ids)s::bigint[]) and locked_by = %(holder)s::text and locked_at = any (%(since)s::timestamptz[])
    returning id, job_queue_id
), freed as (
    update {schema}._private_job_queues
    set locked_at = null, locked_by = null
    where id = any (
            array(
                select d.job_queue_id
                from done as d
                where (d.id in (select f.id from unnest(%(freeing)s::bigint[]) as f (id))) is true
            )
        )
        and locked_by = %(holder)s::text
        and locked_at = any (%(since)s::timestamptz[])
)
select i.id from unnest(%(ids)s::bigint[]) as i (id) where i.id not in (select d.id from done as d)
