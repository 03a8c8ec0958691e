-- Which of these jobs have a limit of their own, in seconds; null: no limit.
select t.job_id, t.seconds from {schema}._private_py_timeouts as t where t.job_id = any (%(ids)s::bigint[])
