-- Finds jobs as look_rows does, among all of them, through the view.
with found as materialized (
    select j.id, j.locked_at, j.run_at,
        greatest(j.updated_at, j.run_at - make_interval(secs => exp(least(j.attempts, 10)))) as failed_at
    from {schema}.jobs as j
    where j.locked_at is not null or j.last_error is not null
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
select j.task_identifier,
    j.id, j.attempts, j.max_attempts, j.locked_by, extract(epoch from now() - j.locked_at)::float8,
    case when c.failed_at is not null then left(j.last_error, 500) end, c.failed_at, c.guessed,
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from (
    select j.id, j.task_identifier, j.attempts, j.max_attempts, j.locked_by, j.locked_at, j.last_error
    from {schema}.jobs as j
    where j.id = any (array(select c.id from chosen as c))
) as j
join chosen as c on c.id = j.id
