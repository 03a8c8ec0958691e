-- Everything up to migration 18 at once, for a schema that has none of it: tables, indexes, the view, the type, and
-- the functions other than add_job and add_jobs, which 000020 brings.
--
-- Names, types, defaults and argument names are shared with Node's worker, with plain SQL callers and with Node's
-- later migrations: a sequence called jobs_id_seq1 and a key called jobs_pkey1 are the interface, not a slip.
-- Checks and the view are spelled so that a dump of this schema and of Node's differ in the bodies of functions only,
-- which are our own.
--
-- The ledger's rows come first. Node's installer, too, writes its row before it runs the migration: two installers
-- meet at row 1, one waits there and loses with a unique violation, and neither can hold what the other needs next.
-- A row that is there already means just that, so the insert does not step around it.

insert into {schema}.migrations (id, breaking)
select number, number in (1, 3, 11, 13, 14, 16)
from generate_series(1, 18) as number;

create table {schema}._private_job_queues (
  id integer generated always as identity (sequence name {schema}.job_queues_id_seq)
    constraint job_queues_pkey1 primary key,
  queue_name text not null
    constraint job_queues_queue_name_key unique
    constraint job_queues_queue_name_check check (length(queue_name) <= 128),
  locked_at timestamptz,
  locked_by text,
  is_available boolean not null generated always as (locked_at is null) stored
);

create table {schema}._private_tasks (
  id integer generated always as identity (sequence name {schema}.tasks_id_seq)
    constraint tasks_pkey primary key,
  identifier text not null
    constraint tasks_identifier_key unique
    constraint tasks_identifier_check check (length(identifier) <= 128)
);

-- No foreign keys, on purpose: each job added would have to lock its task's and its queue's row.
create table {schema}._private_jobs (
  id bigint generated always as identity (sequence name {schema}.jobs_id_seq1)
    constraint jobs_pkey1 primary key,
  job_queue_id integer,
  task_id integer not null,
  payload json not null default '{{}}'::json,
  priority smallint not null default 0,
  run_at timestamptz not null default now(),
  attempts smallint not null default 0,
  max_attempts smallint not null default 25
    constraint jobs_max_attempts_check check (max_attempts >= 1),
  last_error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  key text
    constraint jobs_key_key1 unique
    constraint jobs_key_check check (length(key) > 0 and length(key) <= 512),
  locked_at timestamptz,
  locked_by text,
  revision integer not null default 0,
  flags jsonb,
  is_available boolean not null generated always as (locked_at is null and attempts < max_attempts) stored
);

create table {schema}._private_known_crontabs (
  identifier text constraint known_crontabs_pkey primary key,
  known_since timestamptz not null,
  last_execution timestamptz
);

create index jobs_main_index on {schema}._private_jobs
  using btree (priority, run_at) include (id, task_id, job_queue_id)
  where (is_available = true);

create index jobs_no_queue_index on {schema}._private_jobs
  using btree (priority, run_at) include (id, task_id)
  where (is_available = true and job_queue_id is null);

alter table {schema}._private_job_queues enable row level security;
alter table {schema}._private_tasks enable row level security;
alter table {schema}._private_jobs enable row level security;
alter table {schema}._private_known_crontabs enable row level security;

create type {schema}.job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);

-- What people may look at: all but the payload. A job whose task has no row is not shown.
create view {schema}.jobs as
select
  jobs.id,
  job_queues.queue_name,
  tasks.identifier as task_identifier,
  jobs.priority,
  jobs.run_at,
  jobs.attempts,
  jobs.max_attempts,
  jobs.last_error,
  jobs.created_at,
  jobs.updated_at,
  jobs.key,
  jobs.locked_at,
  jobs.locked_by,
  jobs.revision,
  jobs.flags
from {schema}._private_jobs as jobs
join {schema}._private_tasks as tasks on tasks.id = jobs.task_id
left join {schema}._private_job_queues as job_queues on job_queues.id = jobs.job_queue_id;

-- Deletes the job of this key, or, while somebody works on it, takes key and remaining attempts away from it.
create function {schema}.remove_job(job_key text)
returns {schema}._private_jobs
language plpgsql
strict
as $graphile_worker_py$
declare
  job {schema}._private_jobs;
begin
  -- The row is locked before it is judged: judged first, it could be locked or let go in between. While we wait
  -- for it, somebody may replace it with another row of the same key, which only the next statement can see.
  for attempt in 1 .. 10 loop
    select j.* into job from {schema}._private_jobs as j where j.key = remove_job.job_key for update;
    exit when found or not exists (select from {schema}._private_jobs as j where j.key = remove_job.job_key);
  end loop;
  if job.id is null then
    return job;
  end if;
  if job.locked_at is null or job.locked_at < now() - interval '4 hours' then
    delete from {schema}._private_jobs as j where j.id = job.id;
    perform pg_notify('jobs:insert', format('{{"r":%s,"count":-1}}', random()));
  else
    update {schema}._private_jobs as j
    set key = null, attempts = j.max_attempts, updated_at = now()
    where j.id = job.id
    returning j.* into job;
  end if;
  return job;
end
$graphile_worker_py$;

-- The three below pass over jobs somebody works on; a lock older than four hours counts as nobody's.

create function {schema}.complete_jobs(job_ids bigint[])
returns setof {schema}._private_jobs
language sql
as $graphile_worker_py$
  delete from {schema}._private_jobs as j
  where j.id = any (complete_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < now() - interval '4 hours')
  returning j.*;
$graphile_worker_py$;

create function {schema}.permanently_fail_jobs(job_ids bigint[], error_message text default null)
returns setof {schema}._private_jobs
language sql
as $graphile_worker_py$
  update {schema}._private_jobs as j
  set
    last_error = coalesce(permanently_fail_jobs.error_message, 'Manually marked as failed'),
    attempts = j.max_attempts,
    updated_at = now()
  where j.id = any (permanently_fail_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < now() - interval '4 hours')
  returning j.*;
$graphile_worker_py$;

create function {schema}.reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz default null,
  priority integer default null,
  attempts integer default null,
  max_attempts integer default null
)
returns setof {schema}._private_jobs
language sql
as $graphile_worker_py$
  update {schema}._private_jobs as j
  set
    run_at = coalesce(reschedule_jobs.run_at, j.run_at),
    priority = coalesce(reschedule_jobs.priority, j.priority),
    attempts = coalesce(reschedule_jobs.attempts, j.attempts),
    max_attempts = coalesce(reschedule_jobs.max_attempts, j.max_attempts),
    updated_at = now()
  where j.id = any (reschedule_jobs.job_ids)
    and (j.locked_at is null or j.locked_at < now() - interval '4 hours')
  returning j.*;
$graphile_worker_py$;

-- For workers known to be gone: nothing here checks that they are.
create function {schema}.force_unlock_workers(worker_ids text[])
returns void
language sql
as $graphile_worker_py$
  update {schema}._private_jobs as j
  set locked_at = null, locked_by = null
  where j.locked_by = any (force_unlock_workers.worker_ids);
  update {schema}._private_job_queues as q
  set locked_at = null, locked_by = null
  where q.locked_by = any (force_unlock_workers.worker_ids);
$graphile_worker_py$;
