-- Migration 19, a mark and nothing else: from here on locked_by holds the id of a pool, no longer of one worker.
-- Breaking, for a worker from before it would take a pool's locks for those of a worker that died.
--
-- Such workers are told to stop where this upgrades a schema they may be running on. A schema that was made in this
-- very transaction has no workers, and the channel is heard in the whole database: its neighbours' workers are
-- not to be stopped. A row from this transaction carries the transaction's time.

insert into {schema}.migrations (id, breaking) values (19, true);

select pg_notify('worker:migrate', '{{"migrationNumber":19,"breaking":true}}')
where exists (select from {schema}.migrations as m where m.ts <> now());
