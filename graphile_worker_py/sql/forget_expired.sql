-- Deletes results, and runs from the history, whose time is over, at most `count` of each; runs also where they are older
-- than `history` seconds, null for no such limit. Runs go in the order they were entered. Returns how many went of each.
with results as (
    delete from {schema}._private_py_results
    where job_id = any (
        array(
            select r.job_id
            from {schema}._private_py_results as r
            where r.expires_at < now()
            order by r.expires_at
            limit %(count)s::integer
        )
    )
    returning job_id
), runs as (
    delete from {schema}._private_py_history
    where id = any (
        array(
            select o.id
            from (
                select h.id, least(h.expires_at, h.finished_at + make_interval(secs => %(history)s::float8)) as ends_at
                from {schema}._private_py_history as h
                order by h.id
                limit %(count)s::integer
            ) as o
            where o.ends_at < now()
        )
    )
    returning id
)
select (select count(*) from results)::integer, (select count(*) from runs)::integer
