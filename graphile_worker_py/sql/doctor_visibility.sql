-- Whether this role sees what the sessions of others do.
select pg_has_role('pg_read_all_stats', 'usage'), format('grant pg_read_all_stats to %I', current_user)
