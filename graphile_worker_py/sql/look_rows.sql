-- Of some pages of the table, up to `running` of the jobs that run, the longest first, and of those that wait or have failed
-- with an error up to `failing` of either kind, the latest first. When a job failed is not stored, but with the usual delay
-- it follows from run_at. With a longer one that would be in the future: these are the other kind, in the order of run_at.
-- The pages are read once, and only for what decides; what there is to show is looked up by id.
with found as materialized (
    select j.id, j.locked_at, j.run_at,
        greatest(j.updated_at, j.run_at - make_interval(secs => exp(least(j.attempts, 10)))) as failed_at
    from {schema}._private_jobs as j
    where j.ctid >= %(first)s::tid and j.ctid < %(beyond)s::tid
        and (j.locked_at is not null or j.last_error is not null)
), chosen as materialized (
    (
        select f.id, null::timestamptz as failed_at, false as guessed
        from found as f
        where f.locked_at is not null
        order by f.locked_at
        limit %(running)s::integer
    )
    union all
    (
        select f.id, f.failed_at, false
        from found as f
        where f.locked_at is null and f.failed_at <= now()
        order by f.failed_at desc, f.id
        limit %(failing)s::integer
    )
    union all
    (
        select f.id, f.run_at, true
        from found as f
        where f.locked_at is null and f.failed_at > now()
        order by f.run_at desc, f.id
        limit %(failing)s::integer
    )
)
select (select t.identifier from {schema}._private_tasks as t where t.id = j.task_id),
    j.id, j.attempts, j.max_attempts, j.locked_by, extract(epoch from now() - j.locked_at)::float8,
    case when c.failed_at is not null then left(j.last_error, 500) end, c.failed_at, c.guessed,
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from (
    select j.id, j.task_id, j.attempts, j.max_attempts, j.locked_by, j.locked_at, j.last_error
    from {schema}._private_jobs as j
    where j.id = any (array(select c.id from chosen as c))
) as j
join chosen as c on c.id = j.id
