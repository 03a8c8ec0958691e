-- Declares pools dead that were silent for too long, and frees what they held: a job fails as if its handler had, with
-- the ordinary delay and its attempt spent, so that one that kills its process cannot do so for ever. Returns the ids of
-- the dead, each with the number of all their jobs. The rows of the dead are locked first and skipped by a second sweeper.
-- The jobs have no index by their holder: they are read only if there are dead.
with dead as materialized (
    delete from {schema}._private_py_pools
    where id in (
        select p.id from {schema}._private_py_pools as p where p.beat_at < now() - p.dead_after for update skip locked
    )
    returning id
), jobs as (
    update {schema}._private_jobs as j
    set last_error = format('worker vanished: %s was silent for too long while it ran this job', j.locked_by),
        run_at = greatest(now(), j.run_at) + make_interval(secs => exp(least(j.attempts, 10))),
        locked_at = null,
        locked_by = null
    where (select count(*) from dead) > 0 and j.locked_by = any (array(select d.id from dead as d))
    returning j.id
), queues as (
    update {schema}._private_job_queues as q
    set locked_at = null, locked_by = null
    where (select count(*) from dead) > 0 and q.locked_by = any (array(select d.id from dead as d))
)
select d.id, (select count(*) from jobs)::integer from dead as d
