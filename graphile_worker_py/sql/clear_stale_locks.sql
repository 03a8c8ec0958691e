-- Frees jobs and queues locked for more than four hours, whoever holds them: Node's rule. The attempt stays spent.
with jobs as (
    update {schema}._private_jobs
    set locked_at = null, locked_by = null, run_at = greatest(run_at, now())
    where locked_at < now() - interval '4 hours'
    returning 1
), queues as (
    update {schema}._private_job_queues
    set locked_at = null, locked_by = null
    where locked_at < now() - interval '4 hours'
)
select count(*) from jobs
