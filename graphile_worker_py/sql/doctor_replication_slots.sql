-- Replication slots that nobody uses, apart from a standby's copies of those of its primary (from 17 on): the bytes
-- of the log they keep, and whether they keep dead rows.
select s.slot_name::text,
    pg_wal_lsn_diff(
        case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, s.restart_lsn
    )::bigint,
    s.xmin is not null, format('select pg_drop_replication_slot(%L)', s.slot_name)
from pg_catalog.pg_replication_slots as s
where not s.active and not coalesce((to_jsonb(s) ->> 'synced')::boolean, false)
    and (s.restart_lsn is not null or s.xmin is not null)
order by s.slot_name
limit 5
