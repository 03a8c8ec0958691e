-- Tells what has become of a transaction: in progress, committed or aborted; null if that was long ago.
select pg_xact_status(%(transaction)s::text::xid8)
