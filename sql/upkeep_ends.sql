-- Upkeep: deletes rows of reveille.ends that are older than a minute. In this table, callers that await a job find its
-- ending if the job's queue keeps no history.
--
--   $1 bigint  the maximum number of rows
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted rows
with mine as materialized (
    select name from reveille.chores where name = 'ends' for update skip locked
), old as materialized (
    select ends.ctid as place
    from reveille.ends
    where exists (select from mine) and ended_at < now() - interval '1 minute'
    order by ended_at
    limit $1
    for update skip locked
), gone as (
    delete from reveille.ends where ctid = any (array(select place from old)) returning 1
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) as done
