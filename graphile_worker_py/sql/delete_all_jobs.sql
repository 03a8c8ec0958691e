-- Deletes all jobs, locked ones too, and the queues they were in: between the tests of somebody's code.
with jobs as (
    delete from {schema}._private_jobs
)
delete from {schema}._private_job_queues
