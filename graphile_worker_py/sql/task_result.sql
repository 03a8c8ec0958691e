-- What is known of one job and of what it has left, for Django's tasks: its row, if it has one, and the record that was
-- kept of it, if that has not expired. One statement, so one snapshot: a job whose row goes and whose record comes is seen
-- with one of the two.
select t.identifier, q.queue_name,
    {job}, r.result::text
from (select %(id)s::bigint as id) as i
left join {schema}._private_jobs as j on j.id = i.id
left join {schema}._private_tasks as t on t.id = j.task_id
left join {schema}._private_job_queues as q on q.id = j.job_queue_id
left join {schema}._private_py_results as r on r.job_id = i.id and r.expires_at > now()
where t.id is not null or r.job_id is not null
