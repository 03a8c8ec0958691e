-- Lets one transaction at a time change what is known of crontabs, Node's included: its upsert takes the table's ROW
-- EXCLUSIVE lock before any row's, so whoever comes second waits with empty hands, and nobody deadlocks however the
-- items of two fleets are ordered. Readers do not wait.
lock table {schema}._private_known_crontabs in share row exclusive mode
