-- Who holds jobs of a range of ids, how many, and since when the one that is held for longest.
select j.locked_by, count(*), min(j.locked_at) as since
from {schema}.jobs as j
where j.id > %(after)s::bigint and j.id <= %(until)s::bigint and j.locked_at is not null and j.locked_by is not null
group by j.locked_by
