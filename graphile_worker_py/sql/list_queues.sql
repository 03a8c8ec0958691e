-- A page of named queues in the order of their names, all of them or those that are held, or are not.
select q.queue_name, q.locked_by, q.locked_at
from {schema}._private_job_queues as q
where (%(after)s::text is null or q.queue_name > %(after)s::text)
    and (%(locked)s::boolean is null or (q.locked_at is not null) = %(locked)s::boolean)
order by q.queue_name
limit %(limit)s::integer
