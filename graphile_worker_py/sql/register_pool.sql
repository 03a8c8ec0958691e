-- Enters a pool among the living; entered already, it is only heard of again.
insert into {schema}._private_py_pools as p (id, dead_after, host, pid, concurrency, version)
values (
    %(id)s::text, make_interval(secs => %(dead_after)s::float8), %(host)s::text, %(pid)s::integer,
    %(concurrency)s::integer, %(version)s::text
)
on conflict (id) do update set beat_at = clock_timestamp()
