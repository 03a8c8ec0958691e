-- Deletes finished jobs as finish_jobs does, and in the same statement keeps the results of those in `kept`, each for so many
-- seconds, and enters all of them in the history, if that is kept (`history`: for how many seconds), with how long each ran.
-- Notifies `channel` of the ids whose results are there; of too many for a notification, without naming them. Returns the
-- ids it did not find, and a null where it has notified.
-- `seconds` is an object by id, and the subqueries are asked whether they are true, so that none can become a join: with
-- rows that are not known before, that has been seen to compare each of 500 with each (50 microseconds a job).
with done as (
    delete from {schema}._private_jobs
    where id = any (%(ids)s::bigint[]) and locked_by = %(holder)s::text and locked_at = any (%(since)s::timestamptz[])
    returning id, job_queue_id, task_id, attempts, locked_at
), freed as (
    update {schema}._private_job_queues
    set locked_at = null, locked_by = null
    where id = any (
            array(
                select d.job_queue_id
                from done as d
                where (d.id in (select f.id from unnest(%(freeing)s::bigint[]) as f (id))) is true
            )
        )
        and locked_by = %(holder)s::text
        and locked_at = any (%(since)s::timestamptz[])
), results as (
    insert into {schema}._private_py_results (job_id, result, expires_at)
    select k.id, k.result::json, now() + make_interval(secs => k.seconds)
    from unnest(%(kept)s::bigint[], %(results)s::text[], %(keep_for)s::float8[]) as k (id, result, seconds)
    where (k.id in (select d.id from done as d)) is true
    on conflict (job_id) do update set result = excluded.result, expires_at = excluded.expires_at
    returning job_id
), named as materialized (
    select t.id, t.identifier
    from {schema}._private_tasks as t
    where %(history)s::float8 is not null and t.id = any (array(select distinct d.task_id from done as d))
), entered as (
    insert into {schema}._private_py_history
        (job_id, claimed_at, expires_at, seconds, attempt, outcome, task, host, pool)
    select d.id, d.locked_at, now() + make_interval(secs => %(history)s::float8),
        (%(seconds)s::jsonb ->> d.id::text)::float8, d.attempts, 'completed',
        (select n.identifier from named as n where n.id = d.task_id), %(host)s::text, %(holder)s::text
    from done as d
    where %(history)s::float8 is not null
), told as materialized (
    select pg_notify(%(channel)s::text, case when length(r.ids) < 7000 then r.ids else '' end)
    from (select string_agg(job_id::text, ',') as ids from results) as r
    where r.ids is not null
)
select i.id from unnest(%(ids)s::bigint[]) as i (id) where i.id not in (select d.id from done as d)
union all
select null from told
