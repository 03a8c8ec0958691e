-- Limits on jobs, by name: how many of a name run at a time, and how many begin in a period. Only workers with such limits
-- read these tables.
--
-- limits: a row for each name that was used lately; whoever takes slots or starts of a name locks its row first, and looks
-- at what is taken after that. slots: one for each claim that runs under a name. It is taken as long as that very claim
-- holds its job, which the job's row tells, so nobody has to free it: neither a worker that is done nor one that
-- crashed. A row is never changed, so one that is seen to be free stays free. starts: how many jobs of a name began, up to
-- the end of which slice of time.

create table {schema}._private_py_limits (
  name text primary key,
  used_at timestamptz not null default now()
);

create table {schema}._private_py_slots (
  name text not null,
  job_id bigint not null,
  since timestamptz not null,
  holder text not null,
  primary key (name, job_id, since)
);

create table {schema}._private_py_starts (
  name text not null,
  slice timestamptz not null,
  jobs integer not null,
  kept_until timestamptz not null,
  primary key (name, slice)
);

insert into {schema}._private_py_migrations (id) values (5);
