-- Removes the settings, counters and rates of a queue that nothing uses. The history of its jobs stays, and so does its
-- row in reveille.limits, which no longer counts.
--
--   $1 text  the queue's name
--
-- Returns one row:
--   is_known   true if the queue had settings, jobs, a worker or counts
--   waiting    the number of jobs that wait, parked ones among them, each counted up to 10,000
--   blocked    the number of blocked jobs, counted up to 10,000
--   running    the number of jobs that workers hold
--   dead       the number of dead jobs, counted up to 10,000
--   workers    the number of workers of the queue
--   schedules  the number of schedules that enqueue into the queue
-- If one of the numbers is not 0, nothing was removed.
with used as materialized (
    select
        (
            select count(*) from (
                select from reveille.jobs where queue = $1 and reserved_at is null and paused_by is null
                order by queue, priority, available_at, id limit 10000
            ) as waiting
        ) + (
            select count(*) from (
                select from reveille.jobs where queue = $1 and paused_by is not null
                order by queue, paused_by, id limit 10000
            ) as parked
        ) as waiting,
        (
            select count(*) from (
                select from reveille.blocked_jobs where queue = $1 order by queue, id limit 10000
            ) as blocked
        ) as blocked,
        (select count(*) from reveille.held_jobs() as held where held.queue = $1) as running,
        (
            select count(*) from (
                select from reveille.dead_jobs where queue = $1 order by queue, kind, reason, finished_at limit 10000
            ) as dead
        ) as dead,
        (select count(*) from reveille.workers where $1 = any (queues)) as workers,
        (select count(*) from reveille.schedules where queue = $1) as schedules
), unused as materialized (
    select from used where waiting + blocked + running + dead + workers + schedules = 0
), settings as (
    delete from reveille.queues where name = $1 and exists (select from unused)
), counted as (
    delete from reveille.counters where queue = $1 and exists (select from unused)
), counted_by_kind as (
    delete from reveille.kind_counters where queue = $1 and exists (select from unused)
), rated as (
    delete from reveille.rates where queue = $1 and exists (select from unused)
)
select
    used.waiting + used.blocked + used.running + used.dead + used.workers + used.schedules > 0
        or exists (select from reveille.queues where name = $1)
        or exists (select from reveille.counters where queue = $1)
        or exists (select from reveille.totals where queue = $1) as is_known,
    used.*
from used
