-- Checks if the server knows a time zone. Reads all of the server's zone files, so call it seldom.
--
--   $1 text  the time zone's name
--
-- Returns one row. known: true if the server knows the time zone.
select exists (select from pg_catalog.pg_timezone_names where lower(name) = lower($1)) as known
