-- Replays a sequence of steps against one schema, and returns all that can be seen after each of them.
--
-- SIDE is the schema and SEEN the one these functions are put into; the steps are written with the same two words.
-- A sequence is one transaction, in which now() stands still: a timestamp is told by its distance from now(), to the
-- microsecond, and "older than four hours" has an exact edge. A step that fails is undone alone.
--
-- Notifications come at the end, in the order they were sent; the mark after each step says whose they are. Those
-- with a random part are all heard; of equal ones, which here means empty ones, PostgreSQL keeps a transaction's first.

create function SEEN.since(moment timestamptz)
returns text
language sql
stable
as $$
  select case when isfinite(moment) then (moment - now())::text else moment::text end
$$;

-- The nth job, the nth of those that may be run, the nth of those that are: counting round and round.

create function SEEN.nth(n integer)
returns bigint
language sql
stable
as $$
  select a.ids[1 + n % cardinality(a.ids)]
  from (select array_agg(j.id order by j.id) as ids from SIDE._private_jobs as j) as a
$$;

create function SEEN.waiting(n integer)
returns bigint
language sql
stable
as $$
  select a.ids[1 + n % cardinality(a.ids)]
  from (select array_agg(j.id order by j.id) as ids from SIDE._private_jobs as j where j.is_available) as a
$$;

create function SEEN.running(n integer)
returns bigint
language sql
stable
as $$
  select a.ids[1 + n % cardinality(a.ids)]
  from (select array_agg(j.id order by j.id) as ids from SIDE._private_jobs as j where j.locked_at is not null) as a
$$;

create function SEEN.job(j SIDE._private_jobs)
returns text
language sql
stable
as $$
  select row(
    j.id, j.job_queue_id, j.task_id, j.payload, j.priority, SEEN.since(j.run_at), j.attempts, j.max_attempts,
    j.last_error, SEEN.since(j.created_at), SEEN.since(j.updated_at), j.key, SEEN.since(j.locked_at), j.locked_by,
    j.revision, j.flags, j.is_available
  )::text
$$;

create function SEEN.replay(steps text[])
returns table (error text, message text, returned text, jobs text, tasks text, queues text, burned text)
language plpgsql
as $$
declare
  job_id bigint := 0;
  task_id bigint := 0;
  queue_id bigint := 0;
  broken text;
  lacking text;
begin
  delete from SIDE._private_jobs;
  delete from SIDE._private_tasks as t where t.id > 0;
  delete from SIDE._private_job_queues as q where q.id > 0;
  for step in 1 .. cardinality(steps) loop
    -- A value burned by this step must not shift the ids of the next ones.
    perform
      setval('SIDE.jobs_id_seq1', job_id + 1, false),
      setval('SIDE.tasks_id_seq', task_id + 1, false),
      setval('SIDE.job_queues_id_seq', queue_id + 1, false);
    error := null;
    message := null;
    returned := null;
    begin
      execute steps[step] into returned;
    exception when others then
      get stacked diagnostics
        error = returned_sqlstate, message = message_text, broken = constraint_name, lacking = column_name;
      error := concat_ws(' ', error, nullif(broken, ''), nullif(lacking, ''));
    end;
    select string_agg(SEEN.job(j), e'\n' order by j.id) into jobs from SIDE._private_jobs as j;
    select string_agg(t::text, e'\n' order by t.id) into tasks from SIDE._private_tasks as t where t.id > 0;
    select string_agg(
      row(q.id, q.queue_name, SEEN.since(q.locked_at), q.locked_by, q.is_available)::text, e'\n' order by q.id
    ) into queues from SIDE._private_job_queues as q where q.id > 0;
    burned := format(
      'jobs %s, tasks %s, queues %s',
      coalesce(pg_sequence_last_value('SIDE.jobs_id_seq1') - job_id, 0),
      coalesce(pg_sequence_last_value('SIDE.tasks_id_seq') - task_id, 0),
      coalesce(pg_sequence_last_value('SIDE.job_queues_id_seq') - queue_id, 0)
    );
    job_id := greatest(job_id, (select max(j.id) from SIDE._private_jobs as j));
    task_id := greatest(task_id, (select max(t.id) from SIDE._private_tasks as t));
    queue_id := greatest(queue_id, (select max(q.id) from SIDE._private_job_queues as q));
    perform pg_notify('mark', step::text);
    return next;
  end loop;
end
$$;
