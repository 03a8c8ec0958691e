-- What about the jobs can be known only by reading them: how many of each task wait and how many have failed for
-- good, and who holds locks, on jobs and on queues, how many, and for how many seconds the oldest. Of a large table
-- some pages are read, at random, about 32 MB of it. Every row says which share of the table that was, in percent,
-- and how to free what a holder holds.
with share as materialized (
    select least(100, 100.0 * 4096 / greatest(1, pg_relation_size(c.oid) / 8192))::real as percent
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = %(schema)s::name and c.relname = '_private_jobs'
), counted as materialized (
    select j.task_id, j.locked_by, count(*) filter (where j.is_available) as waiting,
        count(*) filter (where j.locked_at is null and j.attempts >= j.max_attempts) as failed,
        count(j.locked_at) as locked, min(j.locked_at) as since
    from {schema}._private_jobs as j tablesample system ((select share.percent from share))
    group by j.task_id, j.locked_by
), queues as (
    select q.locked_by, count(*) as locked, min(q.locked_at) as since
    from {schema}._private_job_queues as q
    where q.locked_at is not null
    group by q.locked_by
), holders as (
    select held.locked_by, sum(held.jobs)::bigint as jobs, sum(held.queues)::bigint as queues, min(held.since) as since
    from (
        select c.locked_by, c.locked as jobs, 0 as queues, c.since from counted as c where c.locked > 0
        union all
        select q.locked_by, 0, q.locked, q.since from queues as q
    ) as held
    group by held.locked_by
)
select 'task', t.identifier, sum(c.waiting)::bigint, sum(c.failed)::bigint, null::float8, share.percent::float8, null
from counted as c
join {schema}._private_tasks as t on t.id = c.task_id
cross join share
group by t.identifier, share.percent
union all
select 'holder', h.locked_by, h.jobs, h.queues, extract(epoch from now() - h.since)::float8, share.percent::float8,
    format('select %I.force_unlock_workers(array[%L])', %(schema)s::text, h.locked_by)
from holders as h
cross join share
order by 1, 4 desc, 3 desc
