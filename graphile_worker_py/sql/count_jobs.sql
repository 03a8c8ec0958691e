-- Counts the jobs of a range of ids. What filters them is the same in list_jobs.
select count(*)
from (
    select j.*,
        case
            when j.locked_at is not null then 'running'
            when j.attempts >= j.max_attempts then 'failed'
            when j.run_at <= now() then 'ready'
            when j.attempts > 0 then 'retrying'
            else 'scheduled'
        end as state
    from {schema}.jobs as j
) as s
where s.id > %(after)s::bigint and s.id <= %(until)s::bigint
    and (%(ids)s::bigint[] is null or s.id = any (%(ids)s::bigint[]))
    and (%(state)s::text is null or s.state = %(state)s::text)
    and (%(task)s::text is null or s.task_identifier = %(task)s::text)
    and (%(queue_name)s::text is null or s.queue_name = %(queue_name)s::text)
    and (%(job_key)s::text is null or s.key = %(job_key)s::text)
    and (%(priority)s::integer is null or s.priority = %(priority)s::integer)
    and (%(error)s::text is null or strpos(lower(s.last_error), lower(%(error)s::text)) > 0)
