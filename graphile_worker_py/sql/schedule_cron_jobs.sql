-- Adds the jobs of many ticks, each once in the whole fleet: those whose time is later than the last execution of
-- their identifier, which moves on to the latest of them. `ticks` is a JSON array in the order of time; the table of
-- known crontabs is locked by lock_crontabs, so what is read of it here stays true.
--
-- Jobs without a key are added in one call. Those with one are added singly, for two ticks may share a key, and are
-- returned as `lost` if a worker locked the job of that key just then (a race in the function Node installs): the
-- caller adds them again.
with asked as materialized (
    select t.*, row_number() over () as position
    from json_to_recordset(%(ticks)s::json) as t (
        cron text, ts timestamptz, identifier text, payload json, queue_name text, max_attempts smallint,
        job_key text, priority smallint, flags text[], job_key_mode text
    )
), due as materialized (
    select a.*
    from asked as a
    left join {schema}._private_known_crontabs as k on k.identifier = a.cron
    where k.last_execution is null or k.last_execution < a.ts
), moved as (
    insert into {schema}._private_known_crontabs (identifier, known_since, last_execution)
    select cron, %(now)s::timestamptz, max(ts) from due group by cron
    on conflict (identifier) do update set last_execution = excluded.last_execution
), keyless as materialized (
    select count(*) as added
    from (
        select array_agg(
            row(
                d.identifier, d.payload, d.queue_name, d.ts, d.max_attempts, null, d.priority, d.flags
            )::{schema}.job_spec
            order by d.position
        ) as specs
        from due as d where d.job_key is null
    ) as d
    cross join lateral {schema}.add_jobs(specs => d.specs)
    where d.specs is not null -- an empty list would notify all workers
), keyed as materialized (
    select d.position, j.id
    from (select * from due where job_key is not null order by position) as d
    cross join lateral {schema}.add_job(
        identifier => d.identifier,
        payload => d.payload,
        queue_name => d.queue_name,
        run_at => d.ts,
        max_attempts => d.max_attempts::integer,
        job_key => d.job_key,
        priority => d.priority::integer,
        flags => d.flags,
        job_key_mode => d.job_key_mode
    ) as j
)
select
    (select added from keyless) + (select count(*) from keyed) as added,
    array(select (k.position - 1)::integer from keyed as k where k.id is null order by k.position) as lost
