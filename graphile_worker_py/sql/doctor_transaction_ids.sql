-- How many transactions ago the oldest rows of this database were frozen, of two billion that there may be.
select age(d.datfrozenxid) from pg_catalog.pg_database as d where d.datname = current_database()
