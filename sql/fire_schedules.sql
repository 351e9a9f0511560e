-- Moves schedules to their next ticks, and enqueues a job for each tick, due at the tick's time. It does both, or
-- neither. Passes over a schedule that was moved, changed or paused meanwhile, or that another session has locked.
--
--   $1 bigint[]       schedules
--   $2 timestamptz[]  counted_from of each schedule, as it was read
--   $3 timestamptz[]  next_at of each schedule, as it was read; with $2, the fence
--   $4 timestamptz[]  the next tick of each schedule; null: there is none, and $5 has the reason
--   $5 text[]         the reason why the schedule has no next tick
--   $6 timestamptz[]  the last tick of each schedule for which this statement enqueues a job; null: no such tick
--   $7 bigint[]       the schedule of each tick
--   $8 timestamptz[]  the time of each tick
--
-- Returns one row: the number of schedules that were moved.
with mine as materialized (
    select schedules.*, seen.following_at, seen.finding, seen.fired_at
    from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::timestamptz[])
        as seen (id, counted_from, next_at, following_at, finding, fired_at)
    join reveille.schedules on schedules.id = seen.id
    where schedules.paused_at is null and schedules.counted_from = seen.counted_from
        and schedules.next_at is not distinct from seen.next_at
    for update of schedules skip locked
), moved as (
    update reveille.schedules
    set next_at = mine.following_at,
        last_at = coalesce(mine.fired_at, schedules.last_at),
        error = mine.finding
    from mine
    where schedules.id = mine.id
    returning schedules.id
), enqueued as (
    insert into reveille.jobs (
        queue, kind, payload, priority, max_attempts, available_at, timeout, key, tags, metadata, schedule_id
    )
    select
        mine.queue, mine.kind, mine.payload, mine.priority, mine.max_attempts, tick.due_at, mine.timeout, mine.key,
        mine.tags,
        coalesce(mine.metadata, '{}') || pg_catalog.jsonb_build_object('schedule', mine.name, 'tick', tick.due_at),
        mine.id
    from unnest($7::bigint[], $8::timestamptz[]) with ordinality as tick (schedule_id, due_at, place)
    join mine on mine.id = tick.schedule_id
    order by tick.place
)
select count(*) as moved from moved
