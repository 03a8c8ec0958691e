-- Takes every job and queue from these holders, dead or alive.
select {schema}.force_unlock_workers(worker_ids => %(ids)s::text[])
