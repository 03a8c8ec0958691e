-- Lists runs that are over, the latest entered first.
select h.id, h.job_id, h.task, h.attempt, h.outcome, h.claimed_at, h.finished_at, h.seconds, h.error, h.host, h.pool
from {schema}._private_py_history as h
where (%(task)s::text is null or h.task = %(task)s::text)
    and (%(outcome)s::text is null or h.outcome = %(outcome)s::text)
    and (%(before)s::bigint is null or h.id < %(before)s::bigint)
order by h.id desc
limit %(limit)s::integer
