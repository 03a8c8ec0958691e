-- How sessions of this role begin in this database: settings by name, in their own units, and who is where, quoted.
select s.name, s.reset_val
from pg_catalog.pg_settings as s
where s.name in (
    'server_version', 'server_version_num', 'fsync', 'full_page_writes', 'synchronous_commit', 'autovacuum',
    'autovacuum_vacuum_scale_factor', 'track_counts', 'default_transaction_isolation',
    'default_transaction_read_only', 'statement_timeout', 'idle_in_transaction_session_timeout'
)
union all
values ('standby', pg_is_in_recovery()::text), ('role', quote_ident(current_user)),
    ('login', quote_ident(session_user)), ('database', quote_ident(current_database()))
