-- Claims up to `count` ready jobs for `holder` in the order of priority and run_at, at most one of each named queue.
--
-- heads looks, without locks, at the first jobs of queues nobody holds; held locks those queues; a queue's row is
-- locked before its job is chosen, so two holders can never run one queue, and a pool that comes second skips it
-- whole instead of taking its second job. queued then locks what is still ready of those heads and keeps the first of
-- each queue, ids deciding between equal times. heads has no index of its own and walks over whatever stands before
-- the jobs it finds, so it is run only where `with_queues` asks for it and a queue is free.
-- free takes jobs without a queue, in index order. `id = any (array(...))` keeps the primary key in use whatever the
-- statistics say; a join here has been seen to scan the whole table.
with wanted as materialized (
    select array(
        select t.id from {schema}._private_tasks as t where t.identifier = any (%(tasks)s::text[])
    ) as task_ids
), heads as materialized (
    select j.id, j.job_queue_id
    from {schema}._private_jobs as j
    where %(with_queues)s::boolean
        and j.is_available
        and j.job_queue_id is not null
        and j.run_at <= now()
        and j.task_id = any ((select task_ids from wanted)::integer[])
        and (j.flags is null or not j.flags ?| %(forbidden)s::text[])
        and exists (select from {schema}._private_job_queues where is_available)
        and j.job_queue_id in (select q.id from {schema}._private_job_queues as q where q.is_available)
    order by j.priority, j.run_at, j.id
    limit %(count)s::integer
), held as materialized (
    select q.id
    from {schema}._private_job_queues as q
    where q.id = any (array(select h.job_queue_id from heads as h)) and q.is_available
    for update skip locked
), locked as materialized (
    select j.id, j.job_queue_id, j.priority, j.run_at
    from {schema}._private_jobs as j
    where j.id = any (array(select h.id from heads as h where h.job_queue_id in (select id from held)))
        and j.is_available
        and j.run_at <= now()
    for update skip locked
), queued as (
    select distinct on (job_queue_id) id, job_queue_id, priority, run_at
    from locked
    order by job_queue_id, priority, run_at, id
), free as materialized (
    select j.id, j.job_queue_id, j.priority, j.run_at
    from {schema}._private_jobs as j
    where j.is_available
        and j.job_queue_id is null
        and j.run_at <= now()
        and j.task_id = any ((select task_ids from wanted)::integer[])
        and (j.flags is null or not j.flags ?| %(forbidden)s::text[])
    order by j.priority, j.run_at
    limit %(count)s::integer
    for update skip locked
), picked as materialized (
    select id, job_queue_id
    from (select * from queued union all select * from free) as either_kind
    order by priority, run_at, id
    limit %(count)s::integer
), queues as (
    update {schema}._private_job_queues
    set locked_at = now(), locked_by = %(holder)s::text
    where id = any (array(select job_queue_id from picked where job_queue_id is not null))
    returning id, queue_name
), claimed as (
    update {schema}._private_jobs
    set attempts = attempts + 1, locked_at = now(), locked_by = %(holder)s::text
    where id = any (array(select id from picked))
    returning *
)
select t.identifier, q.queue_name,
    {job}
from claimed as j
join {schema}._private_tasks as t on t.id = j.task_id
left join queues as q on q.id = j.job_queue_id
order by j.priority, j.run_at, j.id
