-- What a worker needs and this role may not, with what grants it.
with wanted (name, privilege, place) as (
    select t.name, p.privilege, p.place
    from unnest(array[
        '_private_jobs', '_private_job_queues', '_private_tasks', '_private_known_crontabs', '_private_py_pools',
        '_private_py_timeouts', '_private_py_progress', '_private_py_results', '_private_py_history',
        '_private_py_limits', '_private_py_slots', '_private_py_starts'
    ]) as t (name), unnest(array['select', 'insert', 'update', 'delete']) with ordinality as p (privilege, place)
    union all
    values ('migrations', 'select', 1)
), missing as (
    select 1 as place, 'usage' as privilege, 'the schema' as name,
        format('grant usage on schema %I to %I', n.nspname, current_user) as mend
    from pg_catalog.pg_namespace as n
    where n.nspname = %(schema)s::name and not has_schema_privilege(n.oid, 'usage')
    union all
    select 2, string_agg(w.privilege, ', ' order by w.place), c.relname::text,
        format(
            'grant %s on %I.%I to %I',
            string_agg(w.privilege, ', ' order by w.place), n.nspname, c.relname, current_user
        )
    from wanted as w
    join pg_catalog.pg_class as c on c.relname = w.name and c.relkind in ('r', 'p')
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = %(schema)s::name and not has_table_privilege(c.oid, w.privilege)
    group by n.nspname, c.relname
    union all
    select 3, 'execute', p.proname::text,
        format('grant execute on function %s to %I', p.oid::regprocedure, current_user)
    from pg_catalog.pg_proc as p
    join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = %(schema)s::name and not has_function_privilege(p.oid, 'execute')
        and p.proname in (
            'add_job', 'add_jobs', 'remove_job', 'complete_jobs', 'permanently_fail_jobs', 'reschedule_jobs',
            'force_unlock_workers'
        )
)
select m.privilege || ' on ' || m.name, m.mend from missing as m order by m.place, m.name
