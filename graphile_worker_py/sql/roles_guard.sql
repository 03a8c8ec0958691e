-- Lets through what the producer may add: jobs of these tasks (null: any), under keys that no job of another task has.
--
-- A key that is free is held until the transaction ends, or somebody could add a job of another task under it between
-- this look and the add: a row with it that was inserted, and deleted at once, makes everybody else wait. Keys are locked
-- in one order, so that two who come with the same ones do not wait in a circle.
create or replace function {producer_schema}._private_guard(identifiers text[], job_keys text[])
returns void
language plpgsql
as $graphile_worker_py$
declare
  allowed constant text[] := {tasks};
  wanted text[];
  held text[];
  is_foreign boolean;
begin
  if allowed is null then
    return;
  end if;
  if exists (select from unnest(identifiers) as i (identifier) where (i.identifier = any (allowed)) is not true) then
    raise exception 'jobs may be added for these tasks only: %', array_to_string(allowed, ', ')
      using errcode = 'insufficient_privilege';
  end if;

  -- The length of keys is checked where they are added.
  wanted := array(select distinct k.key from unnest(job_keys) as k (key) where length(k.key) between 1 and 512);
  for attempt in 1 .. 10 loop
    exit when wanted = '{{}}';

    select
      array_agg(l.key),
      bool_or(not exists (
        select from {schema}._private_tasks as t where t.id = l.task_id and t.identifier = any (allowed)
      ))
    into held, is_foreign
    from (
      select j.key, j.task_id from {schema}._private_jobs as j where j.key = any (wanted) order by j.key for update
    ) as l;
    if is_foreign then
      raise exception 'the job that has this key is of a task for which no jobs may be added'
        using errcode = 'insufficient_privilege';
    end if;
    wanted := array(select k.key from unnest(wanted) as k (key) where (k.key = any (held)) is not true);

    with inserted as (
      insert into {schema}._private_jobs as j (task_id, key, attempts, max_attempts)
      select 0, k.key, 1, 1 from unnest(wanted) as k (key) order by k.key
      on conflict (key) do nothing
      returning j.key
    )
    select array_agg(i.key) into held from inserted as i;
    delete from {schema}._private_jobs as j where j.key = any (held);
    wanted := array(select k.key from unnest(wanted) as k (key) where (k.key = any (held)) is not true);
  end loop;

  if wanted <> '{{}}' then
    raise exception 'could not add the jobs: a key of theirs kept changing hands'
      using errcode = 'serialization_failure', hint = 'Try again.';
  end if;
end
$graphile_worker_py$
