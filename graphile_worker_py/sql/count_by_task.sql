-- Counts jobs by task and state, with the age in seconds of the oldest ready one; tasks without jobs too, if asked for.
select t.identifier,
    coalesce(c.ready, 0), coalesce(c.scheduled, 0), coalesce(c.running, 0), coalesce(c.retrying, 0), coalesce(c.failed, 0),
    extract(epoch from now() - c.oldest)::float8
from {schema}._private_tasks as t
left join (
    select j.task_id,
        count(*) filter (where j.is_available and j.run_at <= now()) as ready,
        count(*) filter (where j.is_available and j.run_at > now() and j.attempts = 0) as scheduled,
        count(*) filter (where j.locked_at is not null) as running,
        count(*) filter (where j.is_available and j.run_at > now() and j.attempts > 0) as retrying,
        count(*) filter (where j.locked_at is null and j.attempts >= j.max_attempts) as failed,
        min(greatest(j.run_at, j.created_at)) filter (where j.is_available and j.run_at <= now()) as oldest
    from {schema}._private_jobs as j
    group by j.task_id
) as c on c.task_id = t.id
where %(idle)s::boolean or c.task_id is not null
order by t.identifier
