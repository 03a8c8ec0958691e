-- Makes jobs that nobody works on due: one without attempts left gets all of them anew, one that waits for its time waits
-- no longer, and one that is due keeps its place. Returns those that are due now, and not held, and wakes workers for them.
with asked as materialized (
    select j.id, j.attempts >= j.max_attempts as failed, j.run_at <= now() as due, j.locked_at is null as free
    from {schema}._private_jobs as j
    where j.id = any (%(ids)s::bigint[])
), due as (
    select r.*
    from {schema}.reschedule_jobs(job_ids => array(select a.id from asked as a where a.failed), run_at => now(), attempts => 0) as r
    union all
    select r.*
    from {schema}.reschedule_jobs(job_ids => array(select a.id from asked as a where not a.failed and not a.due), run_at => now()) as r
    union all
    select w.*
    from {schema}._private_jobs as w
    where w.id = any (array(select a.id from asked as a where not a.failed and a.due and a.free))
), woken as materialized (
    select pg_notify('jobs:insert', format('{{"r":%s,"count":%s}}', random(), count(*)))::text as sent
    from due
    having count(*) > 0
)
select t.identifier, q.queue_name,
    {job}
from due as j
cross join (select count(w.sent) from woken as w) as w
left join {schema}._private_tasks as t on t.id = j.task_id
left join {schema}._private_job_queues as q on q.id = j.job_queue_id
order by j.id
