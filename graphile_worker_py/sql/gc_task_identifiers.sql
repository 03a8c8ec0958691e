-- Drops the names of tasks no job belongs to, but for those to keep, and says how many.
with gone as (
    delete from {schema}._private_tasks as t
    where t.identifier <> all (%(keep)s::text[])
        and not exists (select from {schema}._private_jobs as j where j.task_id = t.id)
    returning 1
)
select count(*) from gone
