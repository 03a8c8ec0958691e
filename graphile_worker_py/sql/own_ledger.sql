-- The highest number in the ledger of our own objects; null where there is none yet.
select max(m.id) from {schema}._private_py_migrations as m
