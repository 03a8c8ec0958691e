-- Tells of the latest runs in the history, of up to `limit` of them and the last hour: by task how many ended within the
-- last `window` seconds, and how many seconds half and 95 percent of all these took at most. After that comes how many
-- seconds they reach back, where there are so many that not all could be looked at.
with latest as materialized (
    select h.task, h.seconds, h.finished_at
    from {schema}._private_py_history as h
    order by h.id desc
    limit %(limit)s::integer
), reach as (
    select case when count(*) >= %(limit)s::integer then extract(epoch from now() - min(l.finished_at)) end as seconds
    from latest as l
)
select l.task,
    count(*) filter (where l.finished_at > now() - make_interval(secs => %(window)s::float8)),
    percentile_cont(0.5) within group (order by l.seconds),
    percentile_cont(0.95) within group (order by l.seconds),
    (select r.seconds::float8 from reach as r),
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from latest as l
where l.finished_at > now() - interval '1 hour'
group by l.task
