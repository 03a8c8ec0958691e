-- Standbys whose queries keep dead rows on this server, and of how many transactions: through a slot, or without
-- one.
select coalesce(r.application_name, s.slot_name::text), age(coalesce(r.backend_xmin, s.xmin))
from pg_catalog.pg_stat_replication as r
full join (
    select s.slot_name, s.active_pid, s.xmin
    from pg_catalog.pg_replication_slots as s
    where s.active and s.xmin is not null
) as s on s.active_pid = r.pid
where coalesce(r.backend_xmin, s.xmin) is not null
    and age(coalesce(r.backend_xmin, s.xmin)) >= %(transactions)s::integer
order by 2 desc
limit 5
