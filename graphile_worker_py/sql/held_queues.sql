-- Who holds named queues, how many, and since when the one that is held for longest.
select q.locked_by, count(*), min(q.locked_at) as since
from {schema}._private_job_queues as q
where q.locked_at is not null and q.locked_by is not null
group by q.locked_by
