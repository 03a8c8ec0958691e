-- Makes each further statement of this transaction end after so many milliseconds, with query_canceled; null leaves it as it
-- is. And lets none of them be compiled, which takes longer than to look at a million jobs, or planned for whatever filters
-- and ranges may be given.
select set_config('statement_timeout', coalesce(%(milliseconds)s::text, current_setting('statement_timeout')), true),
    set_config('jit', 'off', true),
    set_config('plan_cache_mode', 'force_custom_plan', true)
