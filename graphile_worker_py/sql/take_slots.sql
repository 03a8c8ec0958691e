-- Takes slots and starts for jobs that `holder` has just claimed, as many as the limits allow, in the order given; run
-- after lock_limits, in its transaction. A job asked for under two names gets both or none. Without jobs it only looks.
--
-- gates: the names, each with its number, and with a period in seconds where it is a rate. Of the jobs of one name those
-- that another name refuses still count here, so that a bit less may be taken than could be, and never more.
-- A start counts as one at the end of its slice, a fiftieth of the period: too late, so never too many in any period.
-- The time is read here, after the lock was waited for. Returns for each name how many are left, for a rate the seconds
-- until there are more, and which jobs may begin.
-- Whether a slot is held is a scalar subquery on purpose: it cannot become a join, which would read all jobs.
with asked as materialized (
    select a.job_id, a.since, a.name, a.nth
    from unnest(%(ids)s::bigint[], %(since)s::timestamptz[], %(names)s::text[])
        with ordinality as a (job_id, since, name, nth)
), clock as materialized (
    select clock_timestamp() as now
), gates as materialized (
    select
        g.name,
        g.most,
        g.per,
        to_timestamp(ceil(extract(epoch from c.now)::float8 / (g.per / 50)) * (g.per / 50)) as slice,
        c.now - make_interval(secs => g.per) as since
    from clock as c, unnest(%(gates)s::text[], %(most)s::integer[], %(per)s::float8[]) as g (name, most, per)
), slots as materialized (
    select
        s.name,
        s.job_id,
        s.since,
        coalesce(
            (
                select j.locked_by = s.holder and j.locked_at = s.since
                from {schema}._private_jobs as j
                where j.id = s.job_id
            ),
            false
        ) as is_held
    from {schema}._private_py_slots as s
    where s.name = any (%(gates)s::text[])
), rooms as materialized (
    select
        g.*,
        g.most - case when g.per is null
            then (select count(*) from slots as s where s.name = g.name and s.is_held)
            else (
                select coalesce(sum(s.jobs), 0)
                from {schema}._private_py_starts as s
                where s.name = g.name and s.slice > g.since
            )
        end as room
    from gates as g
), allowed as materialized (
    select a.job_id
    from (
        select a.*, row_number() over (partition by a.name order by a.nth) as place from asked as a
    ) as a
    join rooms as r using (name)
    group by a.job_id
    having bool_and(a.place <= r.room)
), taken as materialized (
    select a.* from asked as a where a.job_id in (select l.job_id from allowed as l)
), new_slots as (
    insert into {schema}._private_py_slots (name, job_id, since, holder)
    select t.name, t.job_id, t.since, %(holder)s::text
    from taken as t
    join gates as g using (name)
    where g.per is null
), new_starts as (
    insert into {schema}._private_py_starts as s (name, slice, jobs, kept_until)
    select g.name, g.slice, count(*), g.slice + make_interval(secs => g.per)
    from taken as t
    join gates as g using (name)
    where g.per is not null
    group by g.name, g.slice, g.per
    on conflict (name, slice) do update
    set jobs = s.jobs + excluded.jobs, kept_until = greatest(s.kept_until, excluded.kept_until)
), left_slots as (
    delete from {schema}._private_py_slots as s
    where (select count(*) from asked) > 0
        and s.name = any (%(gates)s::text[])
        and (s.name, s.job_id, s.since) in (select o.name, o.job_id, o.since from slots as o where not o.is_held)
), past_starts as (
    delete from {schema}._private_py_starts as s
    where (select count(*) from asked) > 0
        and s.name = any (%(gates)s::text[])
        and s.kept_until < (select c.now from clock as c)
)
select
    r.name,
    (r.room - (select count(*) from taken as t where t.name = r.name))::integer,
    extract(
        epoch from coalesce(
            (select min(s.slice) from {schema}._private_py_starts as s where s.name = r.name and s.slice > r.since),
            r.slice
        ) - r.since
    )::float8,
    array(select t.job_id from taken as t where t.name = r.name)
from rooms as r
