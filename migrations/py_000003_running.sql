-- What is told by a job that runs, and for how long one may: a limit of its own, which takes the place of its task's
-- (null: none). Rows whose job is gone are swept away now and then; nothing refers to the jobs, whose deletion would
-- then cost more.

create table {schema}._private_py_timeouts (
  job_id bigint primary key,
  seconds double precision
);

create table {schema}._private_py_progress (
  job_id bigint primary key,
  attempt integer not null,
  done bigint not null,
  total bigint,
  message text,
  updated_at timestamptz not null
);

insert into {schema}._private_py_migrations (id) values (3);
