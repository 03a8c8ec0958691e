-- Worker pools that live, each with its last sign of life by the database's clock. Only who is in here is ever judged by
-- it: a pool of ours that was silent for its own `dead_after`. Node's workers, and others, keep Node's rule of four hours.

create table {schema}._private_py_pools (
  id text primary key,
  beat_at timestamptz not null default now(),
  dead_after interval not null,
  started_at timestamptz not null default now(),
  host text not null,
  pid integer not null,
  concurrency integer not null,
  version text not null
);

insert into {schema}._private_py_migrations (id) values (2);
