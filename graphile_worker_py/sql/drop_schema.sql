-- Drops the schema with all that is in it.
drop schema if exists {schema} cascade
