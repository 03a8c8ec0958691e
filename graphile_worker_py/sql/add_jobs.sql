-- Adds a chunk of jobs through the shared function, from one JSON array of specs; keys in it are distinct. The payload
-- comes back only where a merge may have changed it: the caller still has what it sent.
select
    j.id, j.job_queue_id, case when j.revision > 0 then j.payload::text end as payload, j.priority,
    j.run_at, j.attempts, j.max_attempts,
    j.last_error, j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision,
    case when j.flags is not null then array(select jsonb_object_keys(j.flags)) end as flags
from {schema}.add_jobs(
    specs => array(
        select row(
            s.identifier, s.payload, s.queue_name, coalesce(s.run_at, now() + s.delay), s.max_attempts, s.job_key,
            s.priority, s.flags
        )::{schema}.job_spec
        from json_to_recordset(%(specs)s::json) as s(
            identifier text, payload json, queue_name text, run_at timestamptz, delay interval,
            max_attempts smallint, job_key text, priority smallint, flags text[]
        )
    ),
    job_key_preserve_run_at => %(preserve_run_at)s::boolean
) as j
