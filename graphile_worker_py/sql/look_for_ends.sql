-- Says of those of these jobs that are over what became of them: id, result (of those that kept one), whether a row is there,
-- which has then failed for good, its task and its error. One statement, so one snapshot: a job whose row goes and whose
-- result comes is seen with one of the two. Each is looked up by its key, whatever the statistics say.
select i.id, r.result, j.id is not null as failed, t.identifier, j.last_error
from unnest(%(ids)s::bigint[]) as i (id)
left join lateral (
    select r.result::text from {schema}._private_py_results as r where r.job_id = i.id and r.expires_at > now() limit 1
) as r on true
left join lateral (select j.* from {schema}._private_jobs as j where j.id = i.id limit 1) as j on true
left join {schema}._private_tasks as t on t.id = j.task_id
where j.id is null or (j.locked_at is null and j.attempts >= j.max_attempts)
