-- What is there before anything of it is read: the ledger's columns (null without a ledger), the relations that have
-- a name of ours, who owns them, who asks, and whether there is a ledger of our own objects. From the catalog, which needs no privilege and cannot fail on what is
-- missing; always one row.
select
    (
        select array_agg(a.attname::text)
        from pg_catalog.pg_class as c
        join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = n.oid and c.relname = 'migrations' and c.relkind in ('r', 'p')
    ),
    array(
        select c.relname::text
        from pg_catalog.pg_class as c
        where c.relnamespace = n.oid and c.relname in (
            '_private_jobs', '_private_job_queues', '_private_tasks', '_private_known_crontabs', 'jobs', 'job_spec',
            'jobs_id_seq1', 'job_queues_id_seq', 'tasks_id_seq',
            'jobs_pkey1', 'jobs_key_key1', 'jobs_main_index', 'jobs_no_queue_index', 'job_queues_pkey1',
            'job_queues_queue_name_key', 'tasks_pkey', 'tasks_identifier_key', 'known_crontabs_pkey'
        )
        order by c.relname
    ),
    (
        select pg_catalog.pg_get_userbyid(coalesce(
            (select c.relowner from pg_catalog.pg_class as c where c.relnamespace = n.oid and c.relname = '_private_jobs'),
            n.nspowner
        ))::text
    ),
    current_user::text,
    exists (select from pg_catalog.pg_class as c where c.relnamespace = n.oid and c.relname = '_private_py_migrations')
from (values (1)) as one (row)
left join pg_catalog.pg_namespace as n on n.nspname = %(schema)s::name
