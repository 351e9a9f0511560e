-- Adds a schedule, or changes the schedule of that name.
--
--   $1  text              name
--   $2  text              cron text; null: $3 is given
--   $3  double precision  interval in seconds; null: $2 is given
--   $4  text              time zone
--   $5  text              catch-up: skip, one or all
--   $6  text              kind
--   $7  jsonb             payload
--   $8  text              queue
--   $9  smallint          priority
--   $10 int               max_attempts
--   $11 double precision  timeout in seconds; null: the worker's setting
--   $12 text              key
--   $13 text[]            tags
--   $14 jsonb             metadata
--
-- Returns one row: the schedule's id.
select reveille.schedule(
    name => $1,
    cron => $2,
    every => make_interval(secs => $3),
    time_zone => $4,
    catch_up => $5,
    kind => $6,
    payload => $7,
    queue => $8,
    priority => $9,
    max_attempts => $10,
    timeout => make_interval(secs => $11),
    key => $12,
    tags => $13,
    metadata => $14
) as id
