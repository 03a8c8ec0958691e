-- How far a job is, by what it has told last; no row where it has told nothing, or is done.
select p.done, p.total, p.message, p.attempt, p.updated_at
from {schema}._private_py_progress as p
join {schema}._private_jobs as j on j.id = p.job_id
where p.job_id = %(id)s::bigint
