-- Whether the server knows a time zone. It reads all of its zone files for that: to be asked seldom.
--
--   $1 text  the name
select exists (select from pg_catalog.pg_timezone_names where lower(name) = lower($1)) as known
