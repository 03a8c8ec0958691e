-- Of the jobs that are ready, the first thousand of each priority, in the order in which they are claimed: how many
-- of each task, and for how many seconds the oldest. Where jobs are claimed at all, none stays there for long.
with recursive priorities (priority, number) as (
    (
        select j.priority, 1
        from {schema}._private_jobs as j
        where j.is_available
        order by j.priority
        limit 1
    )
    union all
    select (
        select j.priority
        from {schema}._private_jobs as j
        where j.is_available and j.priority > p.priority
        order by j.priority
        limit 1
    ), p.number + 1
    from priorities as p
    where p.priority is not null and p.number < 100
)
select t.identifier, count(*), max(extract(epoch from now() - greatest(first.run_at, first.created_at)))::float8
from priorities as p
cross join lateral (
    select j.task_id, j.run_at, j.created_at
    from {schema}._private_jobs as j
    where j.is_available and j.priority = p.priority and j.run_at <= now()
    order by j.run_at
    limit 1000
) as first
join {schema}._private_tasks as t on t.id = first.task_id
group by t.identifier
order by 3 desc
