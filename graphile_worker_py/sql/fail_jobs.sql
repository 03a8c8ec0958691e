-- Records failures: the error, a later run_at, which items of a batch are left (`kept`, by their places from 1); frees the
-- queues of those in `freeing`. Only where `holder` still holds the job by one of the claims made at `since`; returns the ids
-- it wrote, each with whether no attempt is left (a taken key ends the attempts, too), and with null the ids of jobs that are
-- there, but not held so; and of each whether it is over: nobody holds it, and no attempt is left.
-- More attempts than there may be are those of a job that was cancelled while it ran: its reason stays before the error.
-- A job waits `delays` seconds, or without one e^min(attempts, 10), as in Node; and until one of `run_ats`. `final` uses up
-- its attempts. `snoozed` gives this one back and leaves last_error, unless the job had a key (`keyed`) and lost it while it
-- ran: another job has taken its place. These lists may be empty; else all are as long as `ids`.
-- Items keep their text, to the last digit: they never become values on the way.
-- f is not joined in the usual way round: `id = any` keeps the primary key in use whatever the statistics say; and it is
-- read once for each job.
with f as materialized (
    select *
    from unnest(
        %(ids)s::bigint[], %(errors)s::text[], %(kept)s::text[], %(delays)s::float8[], %(run_ats)s::timestamptz[],
        %(final)s::boolean[], %(snoozed)s::boolean[], %(keyed)s::boolean[]
    ) as f(id, error, kept, delay, run_at, final, snoozed, keyed)
), failed as (
    update {schema}._private_jobs as j
    set (last_error, payload, attempts, run_at) = (
            select
                case
                    when f.snoozed and not (f.keyed and j.key is null) then j.last_error
                    when j.attempts > j.max_attempts and position(j.last_error in f.error) = 0
                        then concat(j.last_error, E'\n\n', f.error)
                    else f.error
                end,
                coalesce(
                    (
                        select json_agg(e.item order by e.place)
                        from json_array_elements(case when f.kept is not null then j.payload end)
                            with ordinality as e (item, place)
                        where e.place = any (f.kept::integer[])
                    ),
                    j.payload
                ),
                case
                    when f.final then greatest(j.attempts, j.max_attempts)
                    when f.snoozed and not (f.keyed and j.key is null) then greatest(0, j.attempts - 1)
                    else j.attempts
                end,
                greatest(
                    greatest(now(), j.run_at) + make_interval(secs => coalesce(f.delay, exp(least(j.attempts, 10)))),
                    f.run_at
                )
            from f
            where f.id = j.id
        ),
        locked_at = null,
        locked_by = null
    where j.id = any (%(ids)s::bigint[])
        and j.locked_by = %(holder)s::text
        and j.locked_at = any (%(since)s::timestamptz[])
    returning j.id, j.job_queue_id, j.attempts >= j.max_attempts as final
), freed as (
    update {schema}._private_job_queues as q
    set locked_at = null, locked_by = null
    where q.id = any (
            array(
                select f.job_queue_id
                from failed as f
                where (f.id in (select o.id from unnest(%(freeing)s::bigint[]) as o (id))) is true
            )
        )
        and q.locked_by = %(holder)s::text
        and q.locked_at = any (%(since)s::timestamptz[])
)
select id, final, final as is_over from failed
union all
select j.id, null, j.locked_at is null and j.attempts >= j.max_attempts
from {schema}._private_jobs as j
where j.id = any (%(ids)s::bigint[]) and j.id not in (select id from failed)
