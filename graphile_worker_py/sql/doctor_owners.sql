-- To whom what we know in the schema belongs, if not to the owner of the table of jobs, with what gives it to that
-- role.
with objects as (
    select c.relowner as owner, c.relname::text as name,
        format(
            'alter %s %I.%I owner to ', case c.relkind when 'v' then 'view' else 'table' end, n.nspname, c.relname
        ) as mend
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = %(schema)s::name and c.relkind in ('r', 'p', 'v')
        and (c.relname in ('jobs', 'migrations') or starts_with(c.relname::text, '_private_'))
    union all
    select p.proowner, p.proname::text, format('alter function %s owner to ', p.oid::regprocedure)
    from pg_catalog.pg_proc as p
    join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = %(schema)s::name
        and p.proname in (
            'add_job', 'add_jobs', 'remove_job', 'complete_jobs', 'permanently_fail_jobs', 'reschedule_jobs',
            'force_unlock_workers'
        )
)
select o.name, pg_get_userbyid(o.owner)::text, pg_get_userbyid(jobs.owner)::text,
    o.mend || quote_ident(pg_get_userbyid(jobs.owner))
from objects as o
join objects as jobs on jobs.name = '_private_jobs' and jobs.owner <> o.owner
order by o.name
