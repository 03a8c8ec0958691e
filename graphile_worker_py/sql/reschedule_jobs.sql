-- Changes jobs that nobody works on; a null argument keeps the old value.
select t.identifier, q.queue_name,
    {job}
from {schema}.reschedule_jobs(
    job_ids => %(ids)s::bigint[],
    run_at => coalesce(%(run_at)s::timestamptz, now() + %(delay)s::interval),
    priority => %(priority)s::integer,
    attempts => %(attempts)s::integer,
    max_attempts => %(max_attempts)s::integer
) as j
left join {schema}._private_tasks as t on t.id = j.task_id
left join {schema}._private_job_queues as q on q.id = j.job_queue_id
