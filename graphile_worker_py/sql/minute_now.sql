-- Tells which minute it is.
select date_trunc('minute', now(), 'UTC')
