-- What is kept of jobs that are over, for those who ask: results, each until it expires, and a history of runs. Both are
-- written by the statement, or in the transaction, that ends the job.
--
-- The history has few indexes, for every run pays for each: by its id, in which order it is read and forgotten (so a row
-- may outlive its time while an older one is still to be kept), and by job. It repeats names instead of pointing to
-- tasks and pools, which may be gone.

create table {schema}._private_py_results (
  job_id bigint primary key,
  result json not null,
  expires_at timestamptz not null
);

create index _private_py_results_expiry on {schema}._private_py_results (expires_at);

create table {schema}._private_py_history (
  id bigint generated always as identity primary key,
  job_id bigint not null,
  claimed_at timestamptz not null,
  finished_at timestamptz not null default now(),
  expires_at timestamptz not null,
  seconds real not null,
  attempt smallint not null,
  outcome text not null,
  task text not null,
  host text not null,
  pool text not null,
  error text
);

create index _private_py_history_job on {schema}._private_py_history (job_id);

insert into {schema}._private_py_migrations (id) values (4);
