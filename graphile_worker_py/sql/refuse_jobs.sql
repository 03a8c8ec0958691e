-- Gives back claimed jobs that a limit does not let begin, attempt included, where `holder` still holds them by one of the
-- claims made at `since`, and frees their queues. Where `flags` has some for a job, as a JSON object, it gets them too:
-- from then on it is passed over while that limit is full.
with refused as (
    update {schema}._private_jobs as j
    set attempts = greatest(0, j.attempts - 1),
        locked_at = null,
        locked_by = null,
        flags = coalesce(
            (
                select coalesce(j.flags, '{{}}') || r.flags::jsonb
                from unnest(%(ids)s::bigint[], %(flags)s::text[]) as r (id, flags)
                where r.id = j.id and r.flags is not null
            ),
            j.flags
        )
    where j.id = any (%(ids)s::bigint[])
        and j.locked_by = %(holder)s::text
        and j.locked_at = any (%(since)s::timestamptz[])
    returning j.job_queue_id
)
update {schema}._private_job_queues as q
set locked_at = null, locked_by = null
where q.id = any (array(select r.job_queue_id from refused as r))
    and q.locked_by = %(holder)s::text
    and q.locked_at = any (%(since)s::timestamptz[])
