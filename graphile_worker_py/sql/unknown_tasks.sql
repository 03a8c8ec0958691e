-- Names the tasks that are not among the known ones, and have jobs that could be run.
select t.identifier
from {schema}._private_tasks as t
where t.identifier <> all (%(known)s::text[])
    and exists (select from {schema}._private_jobs as j where j.task_id = t.id and j.is_available)
