-- Upkeep: unparks jobs whose pause has ended. The end of a pause unparks its first jobs, and a worker that finds no due
-- job unparks more. This chore serves queues that always have due jobs.
--
--   $1 bigint  the maximum number of jobs
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of jobs that were unparked
with mine as materialized (
    select name from reveille.chores where name = 'parked jobs' for update skip locked
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select
    exists (select from mine) as mine,
    case when exists (select from mine) then reveille.unpark($1) else 0 end as done
