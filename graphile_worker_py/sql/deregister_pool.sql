-- Takes a pool that has stopped from among the living.
delete from {schema}._private_py_pools where id = %(id)s::text
