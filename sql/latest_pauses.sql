-- Lists the latest pauses: those of kinds and keys first, then those of whole queues.
--
--   $1 text[]  the queues that the pauses name; null: all pauses
--   $2 int     the maximum number of pauses
--
-- Returns one row per pause: the columns of reveille.pause_status, and `of_pauses`, the number of all pauses of kinds
-- and keys.
select to_jsonb(listed) as record
from (
    select *, count(id) over () as of_pauses
    from reveille.pause_status
    where $1::text[] is null or queue = any ($1)
    order by id is null, paused_at desc, id desc
    limit $2
) as listed
