-- How much of the numbers of each identity column is used; null where this role may not see it. A sequence that was
-- sent to the negative numbers, where nothing was used, is at its end where it comes to zero. Only the sequences of
-- the schema are asked, for each answer takes a lock.
with sequences as materialized (
    select t.relname, a.attname, a.atttypid, q.seqrelid, q.seqmin, q.seqmax,
        case q.seqtypid
            when 'smallint'::regtype then 32767
            when 'integer'::regtype then 2147483647
            else 9223372036854775807
        end as highest
    from pg_catalog.pg_namespace as n
    join pg_catalog.pg_class as t on t.relnamespace = n.oid
    join pg_catalog.pg_depend as d
        on d.refobjid = t.oid and d.refclassid = 'pg_class'::regclass and d.classid = 'pg_class'::regclass
        and d.deptype in ('i', 'a') and d.refobjsubid > 0
    join pg_catalog.pg_sequence as q on q.seqrelid = d.objid
    join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = d.refobjsubid
    where n.nspname = %(schema)s::name
), asked as materialized (
    select s.*,
        case
            when has_sequence_privilege(s.seqrelid, 'usage, select') then coalesce(pg_sequence_last_value(s.seqrelid), 0)
        end as last
    from sequences as s
)
select s.relname::text, s.attname::text, format_type(s.atttypid, null), s.last,
    case
        when s.last >= 0 then s.last::float8 / least(s.highest, s.seqmax)
        else 1 - s.last::float8 / least(-s.highest - 1, s.seqmin)
    end,
    format(
        'alter table %I.%I alter column %I set minvalue %s restart with %s',
        %(schema)s::text, s.relname, s.attname, -s.highest - 1, -s.highest - 1
    )
from asked as s
order by s.relname, s.attname
