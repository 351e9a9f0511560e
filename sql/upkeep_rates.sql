-- Upkeep: deletes the rows of the rates of queues and keys that may start their whole burst again.
--
--   $1 bigint  the maximum number of rates
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted rates
with mine as materialized (
    select name from reveille.chores where name = 'rates' for update skip locked
), paid as materialized (
    select rates.ctid as place
    from reveille.rates
    where exists (select from mine) and next_at < now() - interval '1 minute'
    limit $1
    for update skip locked
), gone as (
    delete from reveille.rates where ctid = any (array(select place from paid)) returning 1
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) as done
