-- Makes the rest of this transaction wait at most two seconds for a lock, then fail with lock_not_available.
select set_config('lock_timeout', '2s', true)
