-- Upkeep: deletes events whose time is over, unless a job still waits for them.
--
--   $1 bigint  the maximum number of events
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted events
--
-- A job that an event has made due reads the event when it runs, so the event stays while the job has a row in
-- reveille.waits.
with mine as materialized (
    select name from reveille.chores where name = 'events' for update skip locked
), past as materialized (
    select events.ctid as place
    from reveille.events
    where exists (select from mine) and events.until < now() and events.seen
        and not exists (select from reveille.waits where waits.event = events.name)
    order by events.until
    limit $1
    for update of events skip locked
), gone as (
    delete from reveille.events where ctid = any (array(select place from past)) returning 1
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) as done
