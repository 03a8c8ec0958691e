-- Unlocks named queues that `holder` locked by one of the claims made at `since`.
update {schema}._private_job_queues
set locked_at = null, locked_by = null
where id = any (%(queues)s::integer[]) and locked_by = %(holder)s::text and locked_at = any (%(since)s::timestamptz[])
