-- Forgets names of limits that were not used for a day, and what was left behind under them. Their rows are locked, and
-- those somebody uses just now are passed over.
with unused as materialized (
    select l.name
    from {schema}._private_py_limits as l
    where l.used_at < now() - interval '1 day'
        and not exists (
            select from {schema}._private_py_starts as s where s.name = l.name and s.kept_until > now()
        )
        and not exists (
            select
            from {schema}._private_py_slots as s
            where s.name = l.name and (
                select j.locked_by = s.holder and j.locked_at = s.since
                from {schema}._private_jobs as j
                where j.id = s.job_id
            )
        )
    limit 10000
    for update skip locked
), slots as (
    delete from {schema}._private_py_slots as s where s.name in (select u.name from unused as u)
), starts as (
    delete from {schema}._private_py_starts as s where s.name in (select u.name from unused as u)
)
delete from {schema}._private_py_limits as l where l.name in (select u.name from unused as u)
