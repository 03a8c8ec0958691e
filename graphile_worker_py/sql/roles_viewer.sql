-- A viewer reads all columns but payloads and results, for whose tables it has a grant column by column; ctid is among
-- them, by which `top` reads a large table in pieces.
do $graphile_worker_py$
declare
  relation record;
begin
  revoke all on schema {schema} from {viewer};
  revoke all on all tables in schema {schema} from {viewer};
  grant usage on schema {schema} to {viewer};
  for relation in
    select
      c.oid::regclass as name,
      string_agg(quote_ident(a.attname), ', ' order by a.attnum) filter (where a.attname not in ('payload', 'result'))
        as columns,
      c.relkind = 'S' or bool_and(a.attname not in ('payload', 'result')) as is_whole
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    join pg_attribute as a on a.attrelid = c.oid and not a.attisdropped
      and (a.attnum > 0 or a.attname = 'ctid')
    where n.nspname = {schema_name}
      and c.relkind in ('r', 'v', 'S')
      and (c.relname ~ '^_private_' or c.relname in ('migrations', 'jobs') or c.relkind = 'S')
    group by c.oid, c.relkind
  loop
    execute format(
      'grant select %s on %s to %I',
      case when relation.is_whole then '' else '(' || relation.columns || ')' end, relation.name, {viewer_name}
    );
  end loop;
end
$graphile_worker_py$
