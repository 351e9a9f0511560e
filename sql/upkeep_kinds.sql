-- Upkeep: deletes the counts by kind that are older than 7 days, and forgets the kinds without an attempt in that time.
--
--   $1 bigint  the maximum number of rows
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted rows
with mine as materialized (
    select name from reveille.chores where name = 'kinds' for update skip locked
), past as materialized (
    select counters.ctid as place
    from reveille.kind_counters as counters
    where exists (select from mine)
        and started_at < now() - interval '7 days'
        and (
            started_at > '-infinity'
            or not exists (
                select from reveille.kind_counters as recent
                where recent.queue = counters.queue and recent.kind = counters.kind
                    and recent.started_at >= now() - interval '7 days'
            )
        )
    order by started_at
    limit $1
    for update skip locked
), gone as (
    delete from reveille.kind_counters where ctid = any (array(select place from past)) returning 1
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) as done
