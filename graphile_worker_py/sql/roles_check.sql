-- What would not give the rights it promises is refused before anything is changed. Names are looked up in pg_catalog
-- alone, locks are waited for ten seconds, and two who run this at once do it one after the other.
do $graphile_worker_py$
declare
  roles constant text[] := {roles};
  culprit text;
  master text;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  perform set_config('lock_timeout', '10s', true);
  perform pg_advisory_xact_lock(1196902233, 1919904883);

  select r.rolname into culprit
  from pg_roles as r
  where r.rolname = any (roles)
    and exists (
      select from pg_roles as s where (s.rolsuper or s.rolbypassrls) and pg_has_role(r.oid, s.oid, 'member')
    );
  if found then
    raise exception 'role % is a superuser or bypasses row security, or may become one that does: name another', culprit
      using errcode = 'GWROL', hint = 'Nothing would limit it.';
  end if;

  select r.rolname, o.rolname into culprit, master
  from pg_roles as r
  join pg_roles as o on pg_has_role(r.oid, o.oid, 'member')
  where r.rolname in ({worker_name}, {producer_name}, {viewer_name}) and o.rolname = {owner_name}
    or r.rolname in ({producer_name}, {viewer_name}) and o.rolname = {worker_name};
  if found then
    raise exception 'role % is a member of %, and would have its rights: revoke that, or name another',
      culprit, master using errcode = 'GWROL';
  end if;

  select name into culprit
  from unnest(roles) as n (name)
  where not exists (select from pg_roles as r where r.rolname = n.name)
    and not (select r.rolsuper or r.rolcreaterole from pg_roles as r where r.rolname = current_user);
  if found then
    raise exception 'role % may not create the role %: run this as a superuser, or a role that has CREATEROLE',
      current_user, culprit using errcode = 'GWROL';
  end if;

  select pg_get_userbyid(n.nspowner) into culprit
  from pg_namespace as n
  where n.nspname = {producer_schema_name} and pg_get_userbyid(n.nspowner) <> {owner_name};
  if found then
    raise exception 'schema % is there already and belongs to %: name another for the producer',
      {producer_schema_name}, culprit using errcode = 'GWROL';
  end if;

  select c.relname into culprit
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where n.nspname = {producer_schema_name} and c.relkind in ('r', 'p', 'm', 'f');
  if found then
    raise exception 'schema % holds tables, such as %, and so is none for a producer: name another for it',
      {producer_schema_name}, culprit using errcode = 'GWROL';
  end if;
end
$graphile_worker_py$
