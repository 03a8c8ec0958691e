-- Counts jobs as look_tally does, all of them, through the view that shows them to roles that may not read the table.
select j.task_identifier,
    case
        when j.locked_at is not null then 'running'
        when j.attempts >= j.max_attempts then 'failed'
        when j.run_at <= now() then 'ready'
        when j.attempts > 0 then 'retrying'
        else 'scheduled'
    end as state,
    case when j.locked_at is not null then j.locked_by end as locked_by,
    count(*),
    extract(epoch from now() - min(coalesce(j.locked_at, case when j.run_at <= now() then greatest(j.run_at, j.created_at) end)))::float8,
    count(j.last_error),
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from {schema}.jobs as j
group by 1, 2, 3
