-- The pools that are entered as living, with the seconds of their silence, after how many each counts as dead, and
-- with what frees what they hold and strikes them off the list.
select p.id, p.host, p.pid, extract(epoch from now() - p.beat_at)::float8, extract(epoch from p.dead_after)::float8,
    format('select %I.force_unlock_workers(array[%L])', %(schema)s::text, p.id),
    format('delete from %I._private_py_pools where id = %L', %(schema)s::text, p.id)
from {schema}._private_py_pools as p
order by p.beat_at
limit 1000
