-- Upkeep: deletes the unique keys whose period is over.
--
--   $1 bigint  the maximum number of unique keys
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted unique keys
with mine as materialized (
    select name from reveille.chores where name = 'unique keys' for update skip locked
), past as materialized (
    select held.ctid as place
    from reveille.unique_periods as held
    where exists (select from mine) and held.ends_at <= now()
    order by held.ends_at
    limit $1
    for update of held skip locked
), gone as (
    delete from reveille.unique_periods where ctid = any (array(select place from past)) returning 1
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) as done
