-- Upkeep: analyzes the tables that are large and have no statistics yet.
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of analyzed tables
with mine as materialized (
    select name from reveille.chores where name = 'statistics' for update skip locked
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select
    exists (select from mine) as mine,
    coalesce((select reveille.analyze_unknown_tables() from mine), 0)::bigint as done
