-- Add a schedule, or change the one of its name.
--
--   $1 text  name         $2 text  cron text, or null     $3 double precision  or: every so many seconds
--   $4 text  time zone    $5 text  catch_up               $6 text  kind          $7 jsonb  payload
--   $8 text  queue        $9 smallint  priority           $10 int  max_attempts  $11 double precision  timeout in seconds
--   $12 text  key         $13 text[]  tags                $14 jsonb  metadata
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
