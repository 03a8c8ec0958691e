-- Cancels jobs that are not over: one that waits has no attempt left, one that runs has one more than it could have made,
-- so that it has none left if it is given back either, and its worker sees that it is to end. One that runs has no key
-- from then on: who adds that key again gets a new job, and does not change what was cancelled. Returns the ids, each with
-- whether it runs; those that are not there, or over, have no row. The rows are locked in the order of their ids.
with asked as materialized (
    select j.id
    from {schema}._private_jobs as j
    where j.id = any (%(ids)s::bigint[]) and (j.locked_at is not null or j.attempts < j.max_attempts)
    order by j.id
    for update
)
update {schema}._private_jobs as j
set max_attempts = case when j.locked_at is null then j.max_attempts else least(j.max_attempts, 32766) end,
    attempts = case when j.locked_at is null then j.max_attempts else least(j.max_attempts, 32766) + 1 end,
    key = case when j.locked_at is null then j.key end,
    last_error = %(reason)s::text,
    updated_at = now()
where j.id = any (array(select a.id from asked as a))
returning j.id, j.locked_at is not null,
    case when j.locked_at is not null then pg_notify(%(channel)s::text, j.id::text)::text end
