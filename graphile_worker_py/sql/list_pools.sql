-- The worker pools that have a row among the living, the oldest first, and which of them were heard of lately enough.
select p.id, p.host, p.pid, p.version, p.concurrency, p.started_at, p.beat_at, p.beat_at >= now() - p.dead_after as alive
from {schema}._private_py_pools as p
order by p.started_at, p.id
