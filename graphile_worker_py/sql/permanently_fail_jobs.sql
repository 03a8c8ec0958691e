-- Ends jobs that nobody works on, keeping their rows with a reason.
select t.identifier, q.queue_name,
    {job}
from {schema}.permanently_fail_jobs(job_ids => %(ids)s::bigint[], error_message => %(reason)s::text) as j
left join {schema}._private_tasks as t on t.id = j.task_id
left join {schema}._private_job_queues as q on q.id = j.job_queue_id
