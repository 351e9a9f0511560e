-- Sets `through_middleware` of schedules that a worker has just declared: true if their jobs pass through the worker's
-- middleware.
--
--   $1 text[]     the names of the schedules
--   $2 boolean[]  true for each schedule whose jobs pass through the middleware
update reveille.schedules
set through_middleware = declared.through_middleware
from unnest($1::text[], $2::boolean[]) as declared (name, through_middleware)
where schedules.name = declared.name and schedules.through_middleware <> declared.through_middleware
