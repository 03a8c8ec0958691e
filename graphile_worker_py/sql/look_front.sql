-- Counts the jobs that are ready by task, up to `cap` of them in the order of the index, and finds the oldest: a first row
-- of no task tells how old that is, in seconds, and of how many priorities all this is. Nothing else is walked over:
-- priorities are found by hopping through the index, the first `lanes` of them.
with recursive hops (priority) as (
    (
        select j.priority
        from {schema}._private_jobs as j
        where j.is_available
        order by j.priority, j.run_at
        limit 1
    )
    union all
    select (
        select j.priority
        from {schema}._private_jobs as j
        where j.is_available and j.priority > h.priority
        order by j.priority, j.run_at
        limit 1
    )
    from hops as h
    where h.priority is not null
), lanes as materialized (
    select h.priority from hops as h where h.priority is not null limit %(lanes)s::integer
), front as (
    select f.task_id
    from lanes as l
    cross join lateral (
        select j.task_id
        from {schema}._private_jobs as j
        where j.is_available and j.priority = l.priority and j.run_at <= now()
        order by j.run_at
        limit %(cap)s::integer
    ) as f
    limit %(cap)s::integer
)
select null as task, (select count(*) from lanes), extract(epoch from now() - min(greatest(o.run_at, o.created_at)))::float8 as age,
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from lanes as l
cross join lateral (
    select j.run_at, j.created_at
    from {schema}._private_jobs as j
    where j.is_available and j.priority = l.priority and j.run_at <= now()
    order by j.run_at
    limit 1
) as o
union all
select (select t.identifier from {schema}._private_tasks as t where t.id = f.task_id), count(*), null,
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from front as f
group by f.task_id
