-- How much of the numbers of each identity column is used; null where this role may not see it. A sequence that was sent
-- to the negative numbers, where nothing was used, is at its end where it comes to zero.
select t.relname::text, a.attname::text, format_type(a.atttypid, null), s.last_value,
    case
        when s.last_value >= 0 then s.last_value::float8 / least(s.highest, s.seqmax)
        else 1 - s.last_value::float8 / least(-s.highest - 1, s.seqmin)
    end,
    format(
        'alter table %I.%I alter column %I set minvalue %s restart with %s',
        n.nspname, t.relname, a.attname, -s.highest - 1, -s.highest - 1
    )
from (
    select q.*, d.refobjid, d.refobjsubid,
        case when has_sequence_privilege(q.seqrelid, 'usage, select') then coalesce(pg_sequence_last_value(q.seqrelid), 0) end as last_value,
        case q.seqtypid when 'smallint'::regtype then 32767 when 'integer'::regtype then 2147483647 else 9223372036854775807 end as highest
    from pg_catalog.pg_sequence as q
    join pg_catalog.pg_depend as d
        on d.objid = q.seqrelid and d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
        and d.deptype in ('i', 'a') and d.refobjsubid > 0
) as s
join pg_catalog.pg_class as t on t.oid = s.refobjid
join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = s.refobjsubid
join pg_catalog.pg_namespace as n on n.oid = t.relnamespace
where n.nspname = %(schema)s::name
order by t.relname, a.attname
