-- Keeps new jobs out until the transaction ends, so that none arrives for a name that is just being dropped.
lock table {schema}._private_jobs in share row exclusive mode
