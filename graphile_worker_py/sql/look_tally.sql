-- Counts the jobs of some pages of the table by task, state and holder, with for how many seconds the oldest has been ready
-- or runs, and how many have an error. A job may be put off for ever, which is no number of seconds.
select (select t.identifier from {schema}._private_tasks as t where t.id = s.task_id), s.state, s.locked_by, s.jobs,
    extract(epoch from now() - s.since)::float8, s.errors,
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from (
    select j.task_id,
        case
            when j.locked_at is not null then 'running'
            when j.attempts >= j.max_attempts then 'failed'
            when j.run_at <= now() then 'ready'
            when j.attempts > 0 then 'retrying'
            else 'scheduled'
        end as state,
        case when j.locked_at is not null then j.locked_by end as locked_by,
        count(*) as jobs,
        min(coalesce(j.locked_at, case when j.run_at <= now() then greatest(j.run_at, j.created_at) end)) as since,
        count(j.last_error) as errors
    from {schema}._private_jobs as j
    where j.ctid >= %(first)s::tid and j.ctid < %(beyond)s::tid
    group by 1, 2, 3
) as s
