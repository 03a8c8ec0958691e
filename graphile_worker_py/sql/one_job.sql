-- One job with its payload.
select t.identifier, q.queue_name,
    {job}
from {schema}._private_jobs as j
join {schema}._private_tasks as t on t.id = j.task_id
left join {schema}._private_job_queues as q on q.id = j.job_queue_id
where j.id = %(id)s::bigint
