-- Claims up to `count` ready jobs for `holder` in the order of priority and run_at; of one named queue a run of up to
-- `run_length`, in the order of priority, run_at and id, which the holder has to work through one after the other.
--
-- lanes: one for each priority in use, found by hopping through the index, so that jobs of the future at a better
-- priority are not walked over. Where `priorities` and `since` are given, those are the lanes and that is where each
-- begins: a hint that saves walking over the dead rows in front, and may miss rows that come before it. Where
-- `last_priority` and `last_run_at` are given, that is where all of them end.
-- free: jobs without a queue, locked in the order of the index. heads: the first jobs of queues nobody holds, looked at
-- without locks, and no further than free has come; asked for by `with_queues`. Whether a queue is free is a scalar
-- subquery on purpose: it cannot become a join, which would read all queues. `busy` are queues to pass over, such as
-- those the holder has itself.
-- held: those queues, locked before any of their jobs: a second holder that comes at the same time skips the
-- queue whole instead of taking its next job. queued: what is then still ready of their heads, up to the first that
-- could not be locked, so that nothing overtakes it.
-- The first row is no job. Its payload tells of the claim: due_in, the seconds until the next job is due, if that is
-- `within` so many and none is now; seconds and queue_seconds, what looking for jobs without and with a queue took, the
-- caller's own waiting left out (being the first branch, it reads the clock before anything is updated); stuck,
-- free queues of which nothing could be had, for somebody holds the first; jobs, how many follow; queued, whether some of
-- them are of a queue.
-- `id = any (array(...))` keeps the primary key in use whatever the statistics say; a join has been seen to scan
-- the whole table. An `in` that is asked whether it is true is looked up in a hash; as a join it has been seen to compare
-- each of 2,000 rows with each, for 200 ms.
with recursive known as materialized (
    select t.id, t.identifier from {schema}._private_tasks as t where t.identifier = any (%(tasks)s::text[])
), wanted as materialized (
    select array(select k.id from known as k) as task_ids
), hops (priority) as (
    (
        select j.priority
        from {schema}._private_jobs as j
        where %(priorities)s::smallint[] is null and j.is_available
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
), lanes (priority, since, until) as (
    select
        l.*,
        case when l.priority = %(last_priority)s::smallint then least(now(), %(last_run_at)s::timestamptz) else now() end
    from (
        select h.priority, '-infinity'::timestamptz from hops as h where h.priority is not null
        union all
        select b.priority, coalesce(b.since, '-infinity')
        from unnest(%(priorities)s::smallint[], %(since)s::timestamptz[]) as b (priority, since)
    ) as l (priority, since)
    where %(last_priority)s::smallint is null or l.priority <= %(last_priority)s::smallint
), free as materialized (
    select f.*
    from lanes as l
    cross join lateral (
        select j.id, j.job_queue_id, j.priority, j.run_at
        from {schema}._private_jobs as j
        where j.is_available
            and j.job_queue_id is null
            and j.priority = l.priority
            and j.run_at >= l.since
            and j.run_at <= l.until
            and j.task_id = any ((select task_ids from wanted)::integer[])
            and (j.flags is null or not j.flags ?| %(forbidden)s::text[])
        order by j.run_at
        limit %(count)s::integer
        for update skip locked
    ) as f
    limit %(count)s::integer
), reach as materialized (
    select f.priority, f.run_at
    from free as f
    order by f.priority desc, f.run_at desc
    limit case when (select count(*) from free) >= %(count)s::integer then 1 else 0 end
), heads as materialized (
    select h.*, row_number() over (partition by h.job_queue_id order by h.priority, h.run_at, h.id) as place
    from (
        select h.*
        from lanes as l
        cross join lateral (
            select j.id, j.job_queue_id, j.priority, j.run_at
            from {schema}._private_jobs as j
            where j.is_available
                and j.job_queue_id is not null
                and j.priority = l.priority
                and j.run_at <= coalesce((select r.run_at from reach as r where r.priority = l.priority), l.until)
                and j.task_id = any ((select task_ids from wanted)::integer[])
                and (j.flags is null or not j.flags ?| %(forbidden)s::text[])
                and (j.job_queue_id in (select b.id from unnest(%(busy)s::integer[]) as b (id))) is not true
                and (select q.is_available from {schema}._private_job_queues as q where q.id = j.job_queue_id)
            order by j.run_at, j.id
            limit %(count)s::integer
        ) as h
        where %(with_queues)s::boolean and l.priority <= coalesce((select r.priority from reach as r), l.priority)
        limit %(count)s::integer
    ) as h
), held as materialized (
    select q.id
    from {schema}._private_job_queues as q
    where q.id = any (array(select h.job_queue_id from heads as h)) and q.is_available
    for update skip locked
), locked as materialized (
    select j.id
    from {schema}._private_jobs as j
    where j.id = any (
            array(
                select h.id
                from heads as h
                where (h.job_queue_id in (select id from held)) is true and h.place <= %(run_length)s::integer
            )
        )
        and j.is_available
        and j.run_at <= now()
    for update skip locked
), queued as (
    select id, job_queue_id, priority, run_at
    from (
        select h.*, row_number() over (partition by h.job_queue_id order by h.place) as nth
        from heads as h
        where (h.id in (select id from locked)) is true
    ) as numbered
    where nth = place
), picked as materialized (
    select f.id, f.job_queue_id from free as f where not exists (select from queued)
    union all
    (
        select e.id, e.job_queue_id
        from (select * from queued union all select * from free) as e
        where exists (select from queued)
        order by e.priority, e.run_at, e.id
        limit %(count)s::integer
    )
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
select null::text as task_identifier, null::text as queue_name, null::bigint as id, null::integer as job_queue_id,
    row_to_json(told)::text as payload, null::smallint as priority, null::timestamptz as run_at, null::smallint as attempts,
    null::smallint as max_attempts, null::text as last_error, null::timestamptz as created_at,
    null::timestamptz as updated_at, null::text as key, null::timestamptz as locked_at, null::text as locked_by,
    null::integer as revision, null::text[] as flags
from (
    select
        case when p.jobs = 0 then (
            select extract(epoch from min(n.run_at) - now())::float8
            from lanes as l
            cross join lateral (
                select j.run_at
                from {schema}._private_jobs as j
                where j.is_available
                    and j.priority = l.priority
                    and j.run_at > now()
                    and j.run_at <= now() + make_interval(secs => %(within)s::float8)
                    and j.task_id = any ((select task_ids from wanted)::integer[])
                order by j.run_at
                limit 1
            ) as n
        ) end as due_in,
        extract(epoch from f.ended_at - statement_timestamp())::float8 as seconds,
        extract(epoch from clock_timestamp() - f.ended_at)::float8 as queue_seconds,
        array(select id from held except select job_queue_id from queued) as stuck,
        p.jobs,
        p.queued > 0 as queued
    from (select clock_timestamp() as ended_at, count(*) as jobs from free) as f
    cross join lateral (select count(*) as jobs, count(job_queue_id) as queued from picked where f.jobs is not null) as p
) as told
union all
select t.identifier, q.queue_name,
    {job}
from claimed as j
join known as t on t.id = j.task_id
left join queues as q on q.id = j.job_queue_id
