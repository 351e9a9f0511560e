-- Upkeep: deletes the record of actions that began more than 90 days ago. The ids of actions ascend with their times,
-- so the oldest actions have the lowest ids.
--
--   $1 bigint  the maximum number of actions
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted actions
with mine as materialized (
    select name from reveille.chores where name = 'actions' for update skip locked
), oldest as materialized (
    select actions.id, actions.started_at
    from reveille.actions
    where exists (select from mine)
    order by actions.id
    limit $1
), gone as (
    delete from reveille.actions
    where id = any (array(select oldest.id from oldest where oldest.started_at < now() - interval '90 days'))
    returning 1
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) as done
