-- Upkeep: deletes the rates that are paid for: the queue or key may start its whole burst again.
--
--   $1 bigint  maximum number of rates
--
-- Returns one row: whether this chore was free, and how many rates were deleted.
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
