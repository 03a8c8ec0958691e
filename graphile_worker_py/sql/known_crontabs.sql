-- Lists what cron items any worker, Node's included, has made known, and which of them are paused.
select identifier, known_since, case when last_execution < %(paused)s::timestamptz then last_execution end as last_execution,
    coalesce(last_execution >= %(paused)s::timestamptz, false) as paused
from {schema}._private_known_crontabs
order by identifier
