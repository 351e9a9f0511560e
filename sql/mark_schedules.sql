-- Say of schedules that a worker has just declared whether their jobs pass its middleware.
--
--   $1 text[]  names    $2 boolean[]  whether
update reveille.schedules
set through_middleware = declared.through_middleware
from unnest($1::text[], $2::boolean[]) as declared (name, through_middleware)
where schedules.name = declared.name and schedules.through_middleware <> declared.through_middleware
