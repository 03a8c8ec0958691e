-- Lists those of the latest runs in the history that have failed within the last hour, the latest first.
select h.task, h.job_id, h.attempt, h.outcome, h.finished_at, left(h.error, 500),
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from (
    select f.id, f.task, f.job_id, f.attempt, f.outcome, f.finished_at, f.error
    from {schema}._private_py_history as f
    order by f.id desc
    limit %(reach)s::integer
) as h
where h.error is not null and h.finished_at > now() - interval '1 hour'
order by h.id desc
limit %(limit)s::integer
