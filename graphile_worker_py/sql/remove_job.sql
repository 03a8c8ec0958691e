-- Deletes the job of a key, or takes the key from one that is running; no row where there is none.
select t.identifier, q.queue_name,
    {job}
from {schema}.remove_job(job_key => %(job_key)s::text) as j
left join {schema}._private_tasks as t on t.id = j.task_id
left join {schema}._private_job_queues as q on q.id = j.job_queue_id
where j.id is not null
