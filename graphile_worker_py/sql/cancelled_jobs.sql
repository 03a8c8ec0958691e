-- Which of the jobs that a pool runs were cancelled, each with its claim and the reason.
select j.id, j.locked_at, j.last_error
from {schema}._private_jobs as j
where j.id = any (%(ids)s::bigint[]) and j.locked_by = %(holder)s::text and j.attempts > j.max_attempts
