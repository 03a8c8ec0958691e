-- Keeps for so many seconds what is to be known of a failed attempt of one of Django's tasks, as long as the attempt still
-- holds its job: another one may have done it in the meantime, and what that has kept is not to be written over.
insert into {schema}._private_py_results (job_id, result, expires_at)
select j.id, %(record)s::json, now() + make_interval(secs => %(keep_for)s::float8)
from {schema}._private_jobs as j
where j.id = %(id)s::bigint and j.locked_by = %(holder)s::text and j.locked_at = %(since)s::timestamptz
on conflict (job_id) do update set result = excluded.result, expires_at = excluded.expires_at
