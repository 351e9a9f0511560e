-- Pairs events with the jobs that wait for them, and makes these jobs due at once.
--
--   $1 bigint  the maximum number of new events, and of new waits
--
-- Returns one row:
--   more   true if more new rows may be left
--   woken  the number of jobs that were made due
--
-- A pass takes the events and the waits that no pass has seen, and pairs them with all others. It marks only rows that
-- its snapshot sees. An event and a wait may be committed at the same time, and a pass may see one of them alone. The
-- pass that marks the later of the two sees both, because it sees everything that was committed before its snapshot.
--
-- A job that the server refuses to change goes on at the end of its wait (reveille.make_due).
--
-- A running job is not made due: it meets the event by itself, or it snoozes, which makes its wait new again
-- (sql/settle_waiting.sql). If another session has locked a waiting job, its event and its wait stay new.
with fresh as materialized (
    select job, event, xmin as version from reveille.waits where not seen order by job, event limit $1
), current as materialized (
    select job, event, xmin as version from reveille.waits
    where (job, event) in (select fresh.job, fresh.event from fresh)
    for update skip locked
), new_waits as materialized (
    -- A snooze that was committed after the snapshot makes a wait new again. Such a wait is left to the next pass.
    select job, event from current join fresh using (job, event, version)
), new_events as materialized (
    select name from reveille.events where not seen order by name limit $1 for update skip locked
), pairs as materialized (
    select waits.job, waits.event
    from new_waits as waits
    where exists (select from reveille.events where events.name = waits.event)
    union
    select waits.job, waits.event from new_events join reveille.waits on waits.event = new_events.name
), resting as materialized (
    select id from reveille.jobs
    where id = any (array(select pairs.job from pairs)) and reserved_at is null
    order by id
    for no key update skip locked
), woken as materialized (
    select reveille.make_due(array(select resting.id from resting)) as jobs where exists (select from resting)
), waiting as materialized (
    select id from reveille.jobs where id = any (array(select pairs.job from pairs)) and reserved_at is null
), locked as materialized (
    select pairs.job, pairs.event
    from pairs
    where pairs.job in (select waiting.id from waiting) and pairs.job not in (select resting.id from resting)
), seen_waits as (
    update reveille.waits
    set seen = true
    where (job, event) in (select new_waits.job, new_waits.event from new_waits)
        and (job, event) not in (select locked.job, locked.event from locked)
), seen_events as (
    update reveille.events
    set seen = true
    where name in (select new_events.name from new_events) and name not in (select locked.event from locked)
)
select
    greatest((select count(*) from fresh), (select count(*) from new_events)) >= $1 as more,
    coalesce((select woken.jobs from woken), 0)::bigint as woken
