-- The dead jobs of one slice that pass a filter. This is the first part of a statement. Another file, such as
-- sql/slice_dead_rows.sql or sql/slice_revived.sql, has the rest.
--
--   $1  text              the walk, which is the way to the jobs:
--                         id: all dead jobs; queue: the jobs of one queue, or of one queue, kind and reason, if there
--                         are 10,000 or fewer; ids: the jobs with the ids $8;
--                         recent: the jobs that died since $14
--   $11 text              the reason; null: any
--   $14 timestamptz       the time since which the job is dead; null: any
--   $15 double precision  the shortest time in seconds for which the job is dead; null: any
--   $16 double precision  the longest time in seconds for which the job is dead; null: any
--   $21 timestamptz       the time after which no job of the slice has died; null: any
--   the other parameters  as in sql/slice_of_jobs.sql
--
-- Defines slice, passing and reached, as sql/slice_of_jobs.sql does.
with recursive groups as (
    (
        select queue, kind, reason from reveille.dead_jobs
        where $1 = 'recent'
        order by queue, kind, reason
        limit 1
    )
    union all
    (
        select following.queue, following.kind, following.reason
        from groups
        cross join lateral (
            select dead_jobs.queue, dead_jobs.kind, dead_jobs.reason from reveille.dead_jobs
            where (dead_jobs.queue, dead_jobs.kind, dead_jobs.reason) > (groups.queue, groups.kind, groups.reason)
            order by dead_jobs.queue, dead_jobs.kind, dead_jobs.reason
            limit 1
        ) as following
    )
), few as materialized (
    (
        select id from reveille.dead_jobs
        where $1 = 'queue' and queue = $9 and ($10::text is null or kind = $10)
            and ($10::text is null or $11::text is null or reason = $11)
        order by queue, kind, reason, finished_at
        limit 10001
    )
    union all
    (
        select died.id
        from groups
        cross join lateral (
            select dead_jobs.id from reveille.dead_jobs
            where dead_jobs.queue = groups.queue and dead_jobs.kind = groups.kind and dead_jobs.reason = groups.reason
                and dead_jobs.finished_at >= $14
            order by dead_jobs.queue, dead_jobs.kind, dead_jobs.reason, dead_jobs.finished_at
            limit $6
        ) as died
    )
    union all
    select given.id from unnest($8::bigint[]) as given (id) where $1 = 'ids'
), slice as materialized (
    select
        walked.id, walked.version, null::timestamptz as due,
        (
            ($9::text is null or walked.queue = $9)
            and ($10::text is null or walked.kind = $10)
            and ($11::text is null or walked.reason = $11)
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
        ) as passes
    from (
        (
            select dead_jobs.*, dead_jobs.xmin as version from reveille.dead_jobs
            where $1 = 'id' and not $2 and id between $3 and $5
            order by id limit $6
        )
        union all
        (
            select dead_jobs.*, dead_jobs.xmin from reveille.dead_jobs
            where $1 = 'id' and $2 and id between $3 and $5
            order by id desc limit $6
        )
        union all
        (
            select dead_jobs.*, dead_jobs.xmin from reveille.dead_jobs
            where $1 <> 'id' and not $2 and id between $3 and $5
                and id = any (array(select id from few)) and ($1 <> 'queue' or (select count(*) from few) <= 10000)
            order by id limit $6
        )
        union all
        (
            select dead_jobs.*, dead_jobs.xmin from reveille.dead_jobs
            where $1 <> 'id' and $2 and id between $3 and $5
                and id = any (array(select id from few)) and ($1 <> 'queue' or (select count(*) from few) <= 10000)
            order by id desc limit $6
        )
    ) as walked
), passing as materialized (
    select id, version, due from slice where passes order by case when $2 then id end desc, id limit $7
), reached as (
    select
        (select count(*) from slice) as walked, (select count(*) from passing) as passed,
        $1 = 'queue' and (select count(*) from few) > 10000 as is_too_many,
        last.id as last_id, null as last_due
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
