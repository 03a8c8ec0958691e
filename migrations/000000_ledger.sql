-- The schema, and Node's ledger of migrations in it. Not a migration itself: it writes no row of its own.
--
-- What is there already is left alone. "create schema if not exists" would need the CREATE privilege on the
-- database even where the schema exists, so a role that was given a ready-made schema is not asked for it.
--
-- A ledger without the column "breaking" (from before Node had it) gets it, filled for the numbers known to be
-- breaking; a ledger that has the column keeps what it says.
--
-- The schema's name is needed as a value as well. No kind of quotes is safe from a name inside a dollar-quoted
-- body, so the value is handed over in a setting that ends with the transaction.

select set_config('graphile_worker_py.schema', $graphile_worker_py${schema}$graphile_worker_py$, true);

do $graphile_worker_py$
declare
  quoted_schema constant text := current_setting('graphile_worker_py.schema');
begin
  if to_regnamespace(quoted_schema) is null then
    create schema {schema};
  end if;
  if to_regclass(quoted_schema || '.migrations') is null then
    create table {schema}.migrations (
      id integer constraint migrations_pkey primary key,
      ts timestamptz not null default now(),
      breaking boolean not null default false
    );
  elsif not exists (
    select from pg_catalog.pg_attribute as a
    where a.attrelid = to_regclass(quoted_schema || '.migrations') and a.attname = 'breaking' and not a.attisdropped
  ) then
    alter table {schema}.migrations add column breaking boolean not null default false;
    update {schema}.migrations set breaking = true where id in (1, 3, 11, 13, 14, 16, 19);
  end if;
end
$graphile_worker_py$;
