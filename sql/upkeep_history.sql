-- Upkeep: deletes the finished jobs that are past their queue's retention, from a slice of one day of the history.
--
--   $1 bigint       the maximum number of pages
--   $2 timestamptz  the time before which the last round of the day must have begun; null: 20 minutes ago
--
-- Returns one row:
--   mine  true if a day needed a round and no other worker is doing that day's chore
--   done  the number of pages read
--
-- Each round reads all of a day's partition, slice by slice. The history has no index by time, because each settlement
-- would pay for the index. A day has a new round in two cases: some of its jobs have passed a retention since the last
-- round, or the retentions have changed. If another session has locked a row, the row stays, and the day has another
-- round.
with kept as materialized (
    select name as queue, retention from reveille.queues where retention is not null
), spans as materialized (
    select retention from kept union select interval '1 day'
), asked as materialized (
    select coalesce(md5(string_agg(queue || ' ' || retention::text, ', ' order by queue)), '') as settings from kept
), today as materialized (
    select (extract(epoch from now())::bigint / 86400)::int as day
), days as materialized (
    select
        chores.name, asked.settings,
        timestamptz 'epoch'
            + (today.day - (today.day - chores.day) % 32)::double precision * interval '1 day' as began,
        pg_relation_size(to_regclass('reveille.finished_jobs_' || chores.day::text))
            / current_setting('block_size')::bigint as pages
    from reveille.chores, today, asked
    where chores.day is not null
), mine as materialized (
    select
        chores.name, chores.day, coalesce(chores.next_page, 0) as page, days.pages, days.settings,
        chores.next_page is null as anew
    from reveille.chores
    join days on days.name = chores.name
    where days.pages > 0
        and (
            chores.next_page is not null
            or coalesce(chores.began_at < coalesce($2::timestamptz, now() - interval '20 minutes'), true)
                and exists (
                    select from spans
                    where days.began < now() - spans.retention
                        and coalesce(
                            chores.began_at - spans.retention < days.began + interval '25 hours'
                            or chores.settings is distinct from days.settings, true
                        )
                )
        )
    order by chores.next_page is null, chores.began_at nulls first
    limit 1
    for update of chores skip locked
), past as materialized (
    select ctid as place
    from reveille.finished_jobs
    where day = (select day from mine)
        and ctid >= (select pg_catalog.format('(%s,0)', page)::tid from mine)
        and ctid < (select pg_catalog.format('(%s,0)', page + $1)::tid from mine)
        -- Each job is kept for a minute more, so that a program that has just listed the job can still find it.
        and finished_at < now() - interval '1 minute'
            - coalesce((select kept.retention from kept where kept.queue = finished_jobs.queue), interval '1 day')
), free as materialized (
    select ctid as place
    from reveille.finished_jobs
    where day = (select day from mine) and ctid = any (array(select place from past))
    for update skip locked
), gone as (
    delete from reveille.finished_jobs
    where day = (select day from mine) and ctid = any (array(select place from free))
    returning 1
), noted as (
    update reveille.chores
    set next_page = case when mine.page + $1 < mine.pages then mine.page + $1 end,
        began_at = case when mine.anew then now() else chores.began_at end,
        -- 'locked' differs from all settings, so that the day has another round.
        settings = case
            when (select count(*) from gone) < (select count(*) from past) then 'locked'
            when mine.anew then mine.settings
            else chores.settings
        end,
        done_at = case when mine.page + $1 < mine.pages then chores.done_at else now() end
    from mine
    where chores.name = mine.name
)
select exists (select from mine) as mine, (select least($1, pages - page) from mine) as done
