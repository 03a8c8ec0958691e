-- Lists the runs of one job that are over, the latest entered first; a statement of its own, for a plan of its own.
select h.id, h.job_id, h.task, h.attempt, h.outcome, h.claimed_at, h.finished_at, h.seconds, h.error, h.host, h.pool
from {schema}._private_py_history as h
where h.job_id = %(job_id)s::bigint
    and (%(task)s::text is null or h.task = %(task)s::text)
    and (%(outcome)s::text is null or h.outcome = %(outcome)s::text)
    and (%(before)s::bigint is null or h.id < %(before)s::bigint)
order by h.id desc
limit %(limit)s::integer
