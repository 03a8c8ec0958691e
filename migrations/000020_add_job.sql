-- Migration 20: add_job and add_jobs. Node's migration 20 replaces the bodies of the same two functions, so that a
-- name that is known already burns no identity value (both identities are 32 bits wide). So do these, and more:
--
-- No request is lost. Adding under a key is two steps: take the key away from a row that is running or dead, then
-- insert, or replace the row that is waiting. A worker may lock that row in between; the replacement then
-- passes it over, and Node's body answers with an empty row. Ours begins again: the passing over has left a lock on
-- the row, so the second round can take the key away, and whoever wants to insert the same key waits for us. Two
-- rounds are the rule, ten the limit. Where a transaction has one snapshot for all its statements, PostgreSQL itself
-- raises 40001 as soon as a row was changed by somebody else, and that passes through.
--
-- No name is lost either. Both functions begin with a lock on the table of jobs that keeps out only those who
-- would delete names nobody uses (they take SHARE ROW EXCLUSIVE first). A transaction whose snapshot is older than
-- that lock may still see a deleted name; hence the key share lock outside READ COMMITTED, which fails on it.
--
-- The workers of an older installation are told (see 000019); this migration breaks nothing for them.

insert into {schema}.migrations (id, breaking) values (20, false);

select pg_notify('worker:migrate', '{{"migrationNumber":20,"breaking":false}}')
where exists (select from {schema}.migrations as m where m.ts <> now());

create or replace function {schema}.add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts integer default null,
  job_key text default null,
  priority integer default null,
  flags text[] default null,
  job_key_mode text default 'replace'
)
returns {schema}._private_jobs
language plpgsql
as $graphile_worker_py$
declare
  job {schema}._private_jobs;
  queue_id integer;
  flag_set jsonb;
begin
  lock table {schema}._private_jobs in row exclusive mode;

  -- A mode without a key is ignored, whatever it says.
  if add_job.job_key is not null and add_job.job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe') then
    raise exception 'job_key_mode: expected replace, preserve_run_at or unsafe_dedupe, got %', add_job.job_key_mode
      using errcode = 'GWBKM';
  end if;
  if add_job.flags is not null then
    flag_set := (select jsonb_object_agg(f.flag, true) from unnest(add_job.flags) as f (flag));
  end if;

  for attempt in 1 .. 10 loop
    if add_job.queue_name is not null then
      select q.id into queue_id
      from {schema}._private_job_queues as q
      where q.queue_name = add_job.queue_name;
    end if;

    -- Each insert below finds no row to insert while the task or the queue is not known by name.
    if add_job.job_key is null then
      insert into {schema}._private_jobs as j
        (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
      select
        queue_id,
        t.id,
        coalesce(add_job.payload, '{{}}'::json),
        coalesce(add_job.run_at, now()),
        coalesce(add_job.max_attempts, 25),
        coalesce(add_job.priority, 0),
        flag_set
      from {schema}._private_tasks as t
      where t.identifier = add_job.identifier and (add_job.queue_name is null or queue_id is not null)
      returning j.* into job;

    elsif add_job.job_key_mode = 'unsafe_dedupe' then
      insert into {schema}._private_jobs as j
        (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      select
        queue_id,
        t.id,
        coalesce(add_job.payload, '{{}}'::json),
        coalesce(add_job.run_at, now()),
        coalesce(add_job.max_attempts, 25),
        add_job.job_key,
        coalesce(add_job.priority, 0),
        flag_set
      from {schema}._private_tasks as t
      where t.identifier = add_job.identifier and (add_job.queue_name is null or queue_id is not null)
      on conflict (key) do update set revision = j.revision + 1, updated_at = now()
      returning j.* into job;

    else
      update {schema}._private_jobs as j
      set key = null, attempts = j.max_attempts, updated_at = now()
      where j.key = add_job.job_key and not j.is_available;

      insert into {schema}._private_jobs as j
        (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      select
        queue_id,
        t.id,
        coalesce(add_job.payload, '{{}}'::json),
        coalesce(add_job.run_at, now()),
        coalesce(add_job.max_attempts, 25),
        add_job.job_key,
        coalesce(add_job.priority, 0),
        flag_set
      from {schema}._private_tasks as t
      where t.identifier = add_job.identifier and (add_job.queue_name is null or queue_id is not null)
      on conflict (key) do update set
        job_queue_id = excluded.job_queue_id,
        task_id = excluded.task_id,
        payload = case
          when json_typeof(j.payload) = 'array' and json_typeof(excluded.payload) = 'array'
            then (j.payload::jsonb || excluded.payload::jsonb)::json
          else excluded.payload
        end,
        priority = excluded.priority,
        run_at = case
          when add_job.job_key_mode = 'preserve_run_at' and j.attempts = 0 then j.run_at
          else excluded.run_at
        end,
        attempts = 0,
        max_attempts = excluded.max_attempts,
        last_error = null,
        updated_at = now(),
        revision = j.revision + 1,
        flags = excluded.flags
      where j.is_available
      returning j.* into job;
    end if;

    if found then
      if add_job.job_key is null or job.revision = 0 or add_job.job_key_mode is distinct from 'unsafe_dedupe' then
        perform pg_notify('jobs:insert', format('{{"r":%s,"count":1}}', random()));
      end if;
      if current_setting('transaction_isolation') <> 'read committed' then
        perform 1 from {schema}._private_tasks as t where t.id = job.task_id for key share;
        perform 1 from {schema}._private_job_queues as q where q.id = job.job_queue_id for key share;
      end if;
      return job;
    end if;

    insert into {schema}._private_tasks (identifier)
    select add_job.identifier
    where not exists (select from {schema}._private_tasks as t where t.identifier = add_job.identifier)
    on conflict do nothing;

    if add_job.queue_name is not null then
      insert into {schema}._private_job_queues (queue_name)
      select add_job.queue_name
      where not exists (select from {schema}._private_job_queues as q where q.queue_name = add_job.queue_name)
      on conflict do nothing;
    end if;
  end loop;

  raise exception 'could not add the job: its key, task or queue kept changing hands'
    using errcode = 'serialization_failure', hint = 'Try again.';
end
$graphile_worker_py$;

create or replace function {schema}.add_jobs(
  specs {schema}.job_spec[],
  job_key_preserve_run_at boolean default false
)
returns setof {schema}._private_jobs
language plpgsql
as $graphile_worker_py$
declare
  task_ids integer[];
  queue_ids integer[];
  all_known boolean;
  any_keyed boolean;
  superseded bigint[];
  added {schema}._private_jobs[] := '{{}}';
begin
  lock table {schema}._private_jobs in row exclusive mode;

  if coalesce(cardinality(specs), 0) = 0 then
    perform pg_notify('jobs:insert', '');
    return;
  end if;

  -- The ids of tasks and queues, in the order of the specs; names that are new are added, in one order for
  -- all, so that two callers with the same new names wait for each other but never in a circle.
  for attempt in 1 .. 10 loop
    select
      array_agg(t.id order by s.ordinality),
      array_agg(q.id order by s.ordinality),
      bool_and(t.id is not null and (q.id is not null or s.queue_name is null)),
      bool_or(s.job_key is not null)
    into task_ids, queue_ids, all_known, any_keyed
    from unnest(specs) with ordinality as s
    left join {schema}._private_tasks as t on t.identifier = s.identifier
    left join {schema}._private_job_queues as q on q.queue_name = s.queue_name;
    exit when all_known;

    insert into {schema}._private_tasks (identifier)
    select distinct s.identifier
    from unnest(specs) as s
    where not exists (select from {schema}._private_tasks as t where t.identifier = s.identifier)
    order by 1
    on conflict do nothing;

    insert into {schema}._private_job_queues (queue_name)
    select distinct s.queue_name
    from unnest(specs) as s
    where s.queue_name is not null
      and not exists (select from {schema}._private_job_queues as q where q.queue_name = s.queue_name)
    order by 1
    on conflict do nothing;
  end loop;

  if not all_known then
    raise exception 'could not add the jobs: the name of a task or a queue kept vanishing'
      using errcode = 'serialization_failure', hint = 'Try again.';
  end if;

  if current_setting('transaction_isolation') <> 'read committed' then
    perform 1 from {schema}._private_tasks as t where t.id = any (task_ids) order by t.id for key share;
    perform 1 from {schema}._private_job_queues as q where q.id = any (queue_ids) order by q.id for key share;
  end if;

  perform pg_notify('jobs:insert', format('{{"r":%s,"count":%s}}', random(), cardinality(specs)));

  if not any_keyed then
    return query
    insert into {schema}._private_jobs as j
      (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
    select
      queue_ids[s.ordinality],
      task_ids[s.ordinality],
      coalesce(s.payload, '{{}}'::json),
      coalesce(s.run_at, now()),
      coalesce(s.max_attempts, 25::smallint),
      coalesce(s.priority, 0::smallint),
      (select jsonb_object_agg(f.flag, true) from unnest(s.flags) as f (flag))
    from unnest(specs) with ordinality as s
    order by s.ordinality
    returning j.*;
    return;
  end if;

  for attempt in 1 .. 10 loop
    -- Rows that have one of the keys are locked in the order of the keys: two callers with the same keys in another
    -- order wait for each other but not in a circle. Whether a row is available is asked of what was locked.
    -- Keys that are new are inserted in the order of the specs, the order in which jobs of one queue are run; two
    -- callers who bring the same new keys in another order may wait in a circle, which PostgreSQL breaks (40P01).
    select array_agg(l.id) filter (where not l.is_available)
    into superseded
    from (
      select j.id, j.is_available
      from {schema}._private_jobs as j
      where j.key in (select s.job_key from unnest(specs) as s)
      order by j.key
      for update
    ) as l;

    if superseded is not null then
      update {schema}._private_jobs as j
      set key = null, attempts = j.max_attempts, updated_at = now()
      where j.id = any (superseded);
    end if;

    -- Everything, the first time; after that the keys for which there is no row yet.
    with inserted as (
      insert into {schema}._private_jobs as j
        (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      select
        queue_ids[s.ordinality],
        task_ids[s.ordinality],
        coalesce(s.payload, '{{}}'::json),
        coalesce(s.run_at, now()),
        coalesce(s.max_attempts, 25::smallint),
        s.job_key,
        coalesce(s.priority, 0::smallint),
        (select jsonb_object_agg(f.flag, true) from unnest(s.flags) as f (flag))
      from unnest(specs) with ordinality as s
      where attempt = 1
        or (s.job_key is not null and not exists (select from unnest(added) as a where a.key = s.job_key))
      order by s.ordinality
      on conflict (key) do update set
        job_queue_id = excluded.job_queue_id,
        task_id = excluded.task_id,
        payload = case
          when json_typeof(j.payload) = 'array' and json_typeof(excluded.payload) = 'array'
            then (j.payload::jsonb || excluded.payload::jsonb)::json
          else excluded.payload
        end,
        priority = excluded.priority,
        run_at = case
          when add_jobs.job_key_preserve_run_at and j.attempts = 0 then j.run_at
          else excluded.run_at
        end,
        attempts = 0,
        max_attempts = excluded.max_attempts,
        last_error = null,
        updated_at = now(),
        revision = j.revision + 1,
        flags = excluded.flags
      where j.is_available
      returning j as job
    )
    select added || array_agg(i.job) into added from inserted as i;
    exit when cardinality(added) = cardinality(specs);
  end loop;

  if cardinality(added) <> cardinality(specs) then
    raise exception 'could not add the jobs: a key of theirs kept changing hands'
      using errcode = 'serialization_failure', hint = 'Try again.';
  end if;

  -- In the order of the specs: one row to a key, and the rows without one in the order they were inserted in. The
  -- empty key stands for none, no row has it.
  return query
  select (a.job).*
  from (
    select u as job, row_number() over (partition by u.key order by u.id) as nth
    from unnest(added) as u
  ) as a
  join (
    select s.job_key, s.ordinality, row_number() over (partition by s.job_key order by s.ordinality) as nth
    from unnest(specs) with ordinality as s
  ) as b on coalesce(b.job_key, '') = coalesce((a.job).key, '') and b.nth = a.nth
  order by b.ordinality;
end
$graphile_worker_py$;
