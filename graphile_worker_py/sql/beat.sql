-- A sign of life; no row where the pool was declared dead in the meantime.
update {schema}._private_py_pools
set beat_at = clock_timestamp()
where id = %(id)s::text and beat_at > 'epoch'
returning id
