-- Upkeep: empties the partition of one day of the history that is past every retention.
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of emptied days: 1 or 0
with mine as materialized (
    select name from reveille.chores where name = 'old days' for update skip locked
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select
    exists (select from mine) as mine,
    coalesce((select reveille.truncate_finished_jobs() from mine), 0)::bigint as done
