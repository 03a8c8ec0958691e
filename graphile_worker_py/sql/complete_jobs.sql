-- Deletes jobs that nobody works on (unlocked, or locked for more than four hours).
select t.identifier, q.queue_name,
    {job}
from {schema}.complete_jobs(job_ids => %(ids)s::bigint[]) as j
left join {schema}._private_tasks as t on t.id = j.task_id
left join {schema}._private_job_queues as q on q.id = j.job_queue_id
