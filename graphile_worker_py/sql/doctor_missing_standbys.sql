-- A row where commits wait for more standbys than are connected; none where that cannot be seen.
select current_setting('synchronous_standby_names')
where current_setting('synchronous_standby_names') <> '' and pg_has_role('pg_read_all_stats', 'usage')
    and not pg_is_in_recovery()
    and (select count(*) from pg_catalog.pg_stat_replication as r where r.sync_state in ('sync', 'quorum'))
        < coalesce(
            (regexp_match(current_setting('synchronous_standby_names'), '^\s*(?:first\s|any\s)?\s*(\d+)\s*\(', 'i'))[1]::integer,
            1
        )
