-- Bounds what the rest of this transaction may do: so many milliseconds for each statement, a tenth of a second for a
-- lock, one process, and no writing.
select set_config('statement_timeout', %(milliseconds)s::text, true), set_config('lock_timeout', '100', true),
    set_config('max_parallel_workers_per_gather', '0', true), set_config('transaction_read_only', 'on', true)
