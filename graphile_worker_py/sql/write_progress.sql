-- Writes how far jobs are, those that `holder` still holds.
insert into {schema}._private_py_progress as p (job_id, attempt, done, total, message, updated_at)
select f.id, f.attempt, f.done, f.total, f.message, clock_timestamp()
from unnest(
    %(ids)s::bigint[], %(attempts)s::integer[], %(done)s::bigint[], %(totals)s::bigint[], %(messages)s::text[]
) as f (id, attempt, done, total, message)
where exists (select from {schema}._private_jobs as j where j.id = f.id and j.locked_by = %(holder)s::text)
on conflict (job_id) do update
set attempt = excluded.attempt, done = excluded.done, total = excluded.total, message = excluded.message,
    updated_at = excluded.updated_at
