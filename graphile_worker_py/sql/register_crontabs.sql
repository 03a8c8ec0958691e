-- Makes the identifiers known that are not, from `now` on, and returns those that were known before, with the time of
-- their last execution, or since when they are known: the snapshot is from before the insert. The table is locked by
-- lock_crontabs.
with known as materialized (
    select k.identifier, coalesce(k.last_execution, k.known_since) as since
    from {schema}._private_known_crontabs as k
    where k.identifier = any (%(identifiers)s::text[])
), added as (
    insert into {schema}._private_known_crontabs (identifier, known_since)
    select asked.identifier, %(now)s::timestamptz
    from unnest(%(identifiers)s::text[]) as asked (identifier)
    where asked.identifier not in (select identifier from known)
)
select identifier, since from known
