-- Our own objects live beside Node's, under names that begin with _private_py_, and are counted in a ledger of their
-- own: Node reads `migrations` by its highest number, so no number of ours may ever stand there. A worker does without
-- them where a role may not make them.
--
-- The index is for claims from named queues: the jobs of a queue are taken in the order of priority, run_at and id, and
-- jobs that were added together have one run_at, which Node's indexes then leave to be sorted for every claim (80 ms
-- for 20,000 of them, seen on 15). Jobs without a queue are not in it.

create table {schema}._private_py_migrations (
  id integer primary key,
  ts timestamptz not null default now()
);

insert into {schema}._private_py_migrations (id) values (1);

create index _private_py_queued_jobs on {schema}._private_jobs (priority, run_at, id)
  where is_available and job_queue_id is not null;
