-- Pauses an item, by a last execution in the far future, which holds every scheduler back, Node's included; or resumes
-- one that is paused: what was due in the meantime is not made up for. Returns the identifier if there is such an item.
update {schema}._private_known_crontabs
set last_execution = case when %(pause)s::boolean then %(paused)s::timestamptz else now() end
where identifier = %(identifier)s::text and (%(pause)s::boolean or last_execution >= %(paused)s::timestamptz)
returning identifier
