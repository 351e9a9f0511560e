-- The finished jobs of one slice that pass a filter and are within their queue's retention. This is the first part of a
-- statement. Another file, such as sql/slice_finished_rows.sql or sql/slice_run_again.sql, has the rest.
--
--   $1  text              the walk, which is the way to the jobs:
--                         id: all finished jobs; ids: the jobs with the ids $8;
--                         recent: the jobs of one day from one page of its partition on
--   $11 text              the outcome: completed or cancelled; null: any
--   $14 timestamptz       the time since which the job is finished; null: any
--   $15 double precision  the shortest time in seconds for which the job is finished; null: any
--   $16 double precision  the longest time in seconds for which the job is finished; null: any
--   $19 smallint          in the walk recent: the day, as in reveille.finished_jobs
--   $20 bigint            in the walk recent: the page
--   $21 timestamptz       the time after which no job of the slice has finished; null: any
--   the other parameters  as in sql/slice_of_jobs.sql
--
-- Defines slice, passing and reached, as sql/slice_of_jobs.sql does. They have the day of a job in place of its
-- version, since a finished job does not change. In the walk recent, reached also has last_page, the last page read.
with slice as materialized (
    select
        walked.id, walked.day, walked.page, null::timestamptz as due,
        (
            ($9::text is null or walked.queue = $9)
            and ($10::text is null or walked.kind = $10)
            and ($11::text is null or walked.outcome = $11)
            and ($14::timestamptz is null or walked.finished_at >= $14)
            and ($21::timestamptz is null or walked.finished_at <= $21)
            and ($15::double precision is null or walked.finished_at <= now() - make_interval(secs => $15))
            and ($16::double precision is null or walked.finished_at >= now() - make_interval(secs => $16))
            and ($12::text is null or walked.key = $12)
            and ($13::text[] is null or walked.tags @> $13)
            and ($17::text is null or strpos(walked.errors -> -1 ->> 'error', $17) > 0)
            and ($22::text is null or split_part(left(walked.errors -> -1 ->> 'error', 500), E'\n', 1)
                = split_part(left($22, 500), E'\n', 1))
            and ($18::jsonb is null or walked.payload @> $18)
            and walked.finished_at > now() - coalesce(
                (select retention from reveille.queues where name = walked.queue), interval '1 day')
        ) as passes
    from (
        (
            select *, null::bigint as page from reveille.finished_jobs
            where $1 = 'id' and not $2 and id between $3 and $5
            order by id limit $6
        )
        union all
        (
            select *, null::bigint from reveille.finished_jobs
            where $1 = 'id' and $2 and id between $3 and $5
            order by id desc limit $6
        )
        union all
        (
            select *, null::bigint from reveille.finished_jobs
            where $1 = 'ids' and id = any ($8::bigint[]) and id between $3 and $5
            order by id limit $6
        )
        union all
        (
            select *, ((ctid::text::point)[0])::bigint from reveille.finished_jobs
            where $1 = 'recent' and day = $19::smallint and ctid >= ('(' || $20::bigint || ',0)')::tid
            limit $6
        )
    ) as walked
), passing as materialized (
    select id, day, due from slice where passes order by case when $2 then id end desc, id limit $7
), reached as (
    select
        (select count(*) from slice) as walked, (select count(*) from passing) as passed, false as is_too_many,
        last.id as last_id, null as last_due, (select max(page) from slice) as last_page
    from (values (true)) as always (one)
    left join lateral (
        select ends.id
        from (
            select id from slice where (select count(*) from passing) < $7
            union all
            select id from passing where (select count(*) from passing) >= $7
        ) as ends
        order by case when $2 then ends.id end, ends.id desc
        limit 1
    ) as last on true
)
