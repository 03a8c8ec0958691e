-- The server's clock, in seconds.
select extract(epoch from clock_timestamp())::float8
