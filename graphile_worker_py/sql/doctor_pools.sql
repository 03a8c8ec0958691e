-- The pools that are entered as living, with the seconds of their silence, and after how many each counts as dead.
select p.id, p.host, p.pid, extract(epoch from now() - p.beat_at)::float8, extract(epoch from p.dead_after)::float8
from {schema}._private_py_pools as p
order by p.beat_at
limit 1000
