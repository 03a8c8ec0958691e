-- Counts jobs by state and task, with the age in seconds of the oldest ready one.
select t.identifier,
    count(*) filter (where j.is_available and j.run_at <= now()) as ready,
    count(*) filter (where j.is_available and j.run_at > now() and j.attempts = 0) as scheduled,
    count(*) filter (where j.locked_at is not null) as running,
    count(*) filter (where j.is_available and j.run_at > now() and j.attempts > 0) as retrying,
    count(*) filter (where j.locked_at is null and j.attempts >= j.max_attempts) as failed,
    extract(epoch from now() - min(greatest(j.run_at, j.created_at)) filter (where j.is_available and j.run_at <= now()))::float8
from {schema}._private_jobs as j
join {schema}._private_tasks as t on t.id = j.task_id
group by t.identifier
order by t.identifier
