-- Keeps a result for so many seconds, in the caller's transaction, and notifies `channel` of it.
with kept as (
    insert into {schema}._private_py_results (job_id, result, expires_at)
    values (%(id)s::bigint, %(result)s::json, now() + make_interval(secs => %(keep_for)s::float8))
    on conflict (job_id) do update set result = excluded.result, expires_at = excluded.expires_at
)
select pg_notify(%(channel)s::text, (%(id)s::bigint)::text)
