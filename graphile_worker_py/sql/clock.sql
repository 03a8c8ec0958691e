-- Tells the time.
select clock_timestamp()
