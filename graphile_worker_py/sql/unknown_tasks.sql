-- Names the tasks that are not among the known ones. Whether they have jobs is not asked: the jobs have no index for that.
select t.identifier from {schema}._private_tasks as t where t.identifier <> all (%(known)s::text[])
