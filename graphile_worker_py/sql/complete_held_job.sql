-- Deletes a job in the caller's transaction if `holder` still holds it by the claim made at `since`; its queue stays locked.
-- Returns which transaction that is.
delete from {schema}._private_jobs
where id = %(id)s::bigint and locked_by = %(holder)s::text and locked_at = %(since)s::timestamptz
returning pg_current_xact_id()::text
