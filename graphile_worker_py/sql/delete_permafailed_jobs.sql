-- Deletes jobs without attempts left that nobody holds, and says how many.
with gone as (
    delete from {schema}._private_jobs where locked_at is null and attempts >= max_attempts returning 1
)
select count(*) from gone
