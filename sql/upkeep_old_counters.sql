-- Upkeep: deletes the counters older than 7 days.
--
--   $1 bigint  the maximum number of counters
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted counters
with mine as materialized (
    select name from reveille.chores where name = 'old counters' for update skip locked
), past as materialized (
    select counters.ctid as place
    from reveille.counters
    -- `is not distinct from` keeps the planner from using any index but the index by time.
    where exists (select from mine) and started_at < now() - interval '7 days' and worker is not distinct from 0
    order by started_at
    limit $1
), gone as (
    delete from reveille.counters where ctid = any (array(select place from past)) returning 1
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) as done
