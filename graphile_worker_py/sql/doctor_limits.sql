-- What holds for the one look that follows in this transaction: it neither writes nor waits, neither for locks nor
-- for a standby that would have to confirm a notification. off: kinds of plans it must not have.
select set_config(name, setting, true)
from (
    values ('statement_timeout', '2s'), ('lock_timeout', '300ms'), ('transaction_read_only', 'on'), ('jit', 'off'),
        ('synchronous_commit', 'local')
    union all
    select kind, 'off' from unnest(%(off)s::text[]) as kind
) as wanted (name, setting)
