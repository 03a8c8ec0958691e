-- Adds one job through the shared function. A task or queue this very statement creates is not visible to it, so
-- the names asked for stand in; an older row kept by unsafe_dedupe shows its own.
select
    coalesce(t.identifier, %(identifier)s::text),
    case when j.job_queue_id is not null then coalesce(q.queue_name, %(queue_name)s::text) end,
    {job}
from {schema}.add_job(
    identifier => %(identifier)s::text,
    payload => %(payload)s::json,
    queue_name => %(queue_name)s::text,
    run_at => coalesce(%(run_at)s::timestamptz, now() + %(delay)s::interval),
    max_attempts => %(max_attempts)s::integer,
    job_key => %(job_key)s::text,
    priority => %(priority)s::integer,
    flags => %(flags)s::text[],
    job_key_mode => %(job_key_mode)s::text
) as j
left join {schema}._private_tasks as t on t.id = j.task_id
left join {schema}._private_job_queues as q on q.id = j.job_queue_id
