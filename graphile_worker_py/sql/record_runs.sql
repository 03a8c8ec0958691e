-- Enters runs in the history, if that is kept (`history`: for how many seconds), none twice: one that a transaction of its
-- handler's has completed is written again if the first answer was lost. Notifies `channel` of the ids in `over`, if any.
with entered as (
    insert into {schema}._private_py_history
        (job_id, claimed_at, expires_at, seconds, attempt, outcome, task, host, pool, error)
    select r.id, r.claimed_at, now() + make_interval(secs => %(history)s::float8), r.seconds, r.attempt, r.outcome, r.task,
        %(host)s::text, %(holder)s::text, left(r.error, 2000)
    from unnest(
        %(ids)s::bigint[], %(claimed_at)s::timestamptz[], %(seconds)s::float8[], %(attempts)s::smallint[],
        %(outcomes)s::text[], %(tasks)s::text[], %(errors)s::text[]
    ) as r (id, claimed_at, seconds, attempt, outcome, task, error)
    where %(history)s::float8 is not null
        and not exists (
            select from {schema}._private_py_history as h where h.job_id = r.id and h.claimed_at = r.claimed_at
        )
)
select pg_notify(%(channel)s::text, %(over)s::text) where %(over)s::text is not null
