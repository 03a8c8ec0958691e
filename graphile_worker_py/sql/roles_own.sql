-- Everything of the queue gets one owner; what else is in its schema is left alone. Sequences follow their tables.
do $graphile_worker_py$
declare
  heir constant name := {heir};
  thing text;
begin
  for thing in
    select a.what
    from pg_namespace as n
    join pg_roles as h on h.rolname = heir
    cross join lateral (
      select 1, format('schema %I', n.nspname) where n.nspowner <> h.oid
      union all
      select 2, format('%s %s', case c.relkind when 'v' then 'view' else 'table' end, c.oid::regclass)
      from pg_class as c
      where c.relnamespace = n.oid
        and c.relowner <> h.oid
        and c.relkind in ('r', 'v')
        and (c.relname ~ '^_private_' or c.relname in ('migrations', 'jobs'))
      union all
      select 2, format('type %s', t.oid::regtype)
      from pg_type as t
      where t.typnamespace = n.oid and t.typowner <> h.oid and t.typname = 'job_spec'
      union all
      select 2, format('function %s', p.oid::regprocedure)
      from pg_proc as p
      where p.pronamespace = n.oid
        and p.proowner <> h.oid
        and p.proname in (
          'add_job', 'add_jobs', 'remove_job', 'complete_jobs', 'permanently_fail_jobs', 'reschedule_jobs',
          'force_unlock_workers'
        )
    ) as a (place, what)
    where n.nspname = {schema_name}
    order by a.place
  loop
    execute format('alter %s owner to %I', thing, heir);
  end loop;
end
$graphile_worker_py$
