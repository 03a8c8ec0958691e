-- Claims one ready job for `holder`, of those tasks, and its named queue with it; none of those in `tried`.
-- Due is what is due within so many seconds of this statement's own time: in a transaction now() stands still, and a job
-- that somebody else added after it began would not be due. First come the jobs that are due already, by priority, then
-- the others as time would bring them.
-- Where another worker takes the same named queue at this moment, nothing is claimed, although more may be due.
with next as (
    select j.id, j.job_queue_id
    from {schema}._private_jobs as j
    where j.is_available
        and j.run_at <= statement_timestamp() + make_interval(secs => %(within)s::float8)
        and j.task_id = any (array(select t.id from {schema}._private_tasks as t where t.identifier = any (%(tasks)s::text[])))
        and j.id <> all (%(tried)s::bigint[])
        and (
            j.job_queue_id is null
            or (select q.is_available from {schema}._private_job_queues as q where q.id = j.job_queue_id)
        )
    order by greatest(j.run_at, statement_timestamp()), j.priority, j.run_at, j.id
    limit 1
    for update skip locked
), queue as (
    update {schema}._private_job_queues
    set locked_at = now(), locked_by = %(holder)s::text
    where id = (select n.job_queue_id from next as n) and is_available
    returning id, queue_name
), claimed as (
    update {schema}._private_jobs
    set attempts = attempts + 1, locked_at = now(), locked_by = %(holder)s::text
    where id = (select n.id from next as n where n.job_queue_id is null or exists (select from queue))
    returning *
)
select t.identifier, q.queue_name,
    {job}
from claimed as j
join {schema}._private_tasks as t on t.id = j.task_id
left join queue as q on q.id = j.job_queue_id
