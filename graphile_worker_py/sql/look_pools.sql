-- Lists the worker pools that live, or did until lately, with how long ago each started and was heard of, and after how long
-- a silence it counts as dead, in seconds.
select p.id, p.host, p.pid, p.version, p.concurrency,
    extract(epoch from now() - p.started_at)::float8,
    extract(epoch from now() - p.beat_at)::float8,
    extract(epoch from p.dead_after)::float8,
    extract(epoch from clock_timestamp() - statement_timestamp())::float8
from {schema}._private_py_pools as p
order by p.host, p.pid, p.id
limit %(limit)s::integer
