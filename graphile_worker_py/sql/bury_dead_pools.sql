-- Declares pools dead that were silent for too long, and frees what they held: a job fails as if its handler had, with
-- the ordinary delay and its attempt spent, so that one that kills its process cannot do so for ever. Returns the ids of
-- the dead, each with the number of all their jobs. The rows of the dead are locked first and skipped by a second sweeper.
-- A job whose row is locked may be about to be completed by the transaction of a handler that nobody hears of any more.
-- It is not waited for, since a judge that waits falls silent itself: it stays locked, with its queue and the row of its
-- pool, which is marked as dead by a beat in 1970, and is judged again at the next sign of life.
-- The jobs have no index by their holder: they are read only if there are dead.
with silent as materialized (
    select p.id, p.beat_at
    from {schema}._private_py_pools as p
    where p.beat_at < now() - p.dead_after
    for update skip locked
), held as materialized (
    select j.id, j.job_queue_id, j.locked_by
    from {schema}._private_jobs as j
    where (select count(*) from silent) > 0 and j.locked_by = any (array(select s.id from silent as s))
), left_over as materialized (
    select j.id
    from {schema}._private_jobs as j
    where j.id = any (array(select h.id from held as h)) and j.locked_by = any (array(select s.id from silent as s))
    for update skip locked
), in_doubt as materialized (
    select h.* from held as h where h.id not in (select l.id from left_over as l)
), jobs as (
    update {schema}._private_jobs as j
    set last_error = concat( -- one that was cancelled, and has more attempts than it may have, keeps why
            case when j.attempts > j.max_attempts then j.last_error || E'\n\n' end,
            format('worker vanished: %s was silent for too long while it ran this job', j.locked_by)
        ),
        run_at = greatest(now(), j.run_at) + make_interval(secs => exp(least(j.attempts, 10))),
        locked_at = null,
        locked_by = null
    where j.id = any (array(select l.id from left_over as l))
    returning j.id
), queues as (
    update {schema}._private_job_queues as q
    set locked_at = null, locked_by = null
    where (select count(*) from silent) > 0
        and q.locked_by = any (array(select s.id from silent as s))
        and q.id <> all (array(select d.job_queue_id from in_doubt as d where d.job_queue_id is not null))
), marked as (
    update {schema}._private_py_pools as p
    set beat_at = 'epoch'
    where p.id in (select d.locked_by from in_doubt as d)
), dead as (
    delete from {schema}._private_py_pools as p
    where p.id in (select s.id from silent as s) and p.id not in (select d.locked_by from in_doubt as d)
)
select s.id, (select count(*) from jobs)::integer
from silent as s
where s.beat_at > 'epoch' or (select count(*) from jobs) > 0
