-- Upkeep: lets parked jobs go whose pause is over. Most of them go when the pause ends, or when a worker finds no due
-- job; this is for the jobs of queues that are always full.
--
--   $1 bigint  the maximum number of jobs
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of jobs that were let go
with mine as materialized (
    select name from reveille.chores where name = 'parked jobs' for update skip locked
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, case when exists (select from mine) then reveille.unpark($1) else 0 end as done
