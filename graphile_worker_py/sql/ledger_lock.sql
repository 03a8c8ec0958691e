-- One installer of a schema at a time, until its transaction ends: the number is ours, picked once, and the schema's
-- name in its quotes makes it one lock for each schema. Node's installer does not ask for it.
select pg_advisory_xact_lock(1196902233, hashtext($graphile_worker_py${schema}$graphile_worker_py$))
