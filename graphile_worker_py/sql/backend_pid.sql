-- The process that serves this transaction; a pooler has told the client another number when it connected.
select pg_backend_pid()
