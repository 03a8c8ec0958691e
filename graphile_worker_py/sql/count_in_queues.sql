-- How many jobs of a range of ids are in some named queues, how many of them are ready, and the age in seconds of the
-- oldest of those.
select j.queue_name, count(*),
    count(*) filter (where j.locked_at is null and j.attempts < j.max_attempts and j.run_at <= now()),
    extract(epoch from now() - min(greatest(j.run_at, j.created_at))
        filter (where j.locked_at is null and j.attempts < j.max_attempts and j.run_at <= now()))::float8
from {schema}.jobs as j
where j.id > %(after)s::bigint and j.id <= %(until)s::bigint and j.queue_name = any (%(names)s::text[])
group by j.queue_name
