-- Tells whether the server knows a time zone. Reads all of the server's zone files, so ask seldom.
--
--   $1 text  name
select exists (select from pg_catalog.pg_timezone_names where lower(name) = lower($1)) as known
