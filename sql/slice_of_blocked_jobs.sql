-- The blocked jobs of one slice that pass a filter. This is the first part of a statement. Another file, such as
-- sql/slice_blocked_rows.sql or sql/slice_cancelled_blocked.sql, has the rest.
--
--   $1  text              the walk, which is the way to the jobs:
--                         id: all blocked jobs; queue: the jobs of one queue; ids: the jobs with the ids $8
--   $11 text, $17 text, $22 text  null: a blocked job has no reason and no error
--   $14 timestamptz       the time since which the job was created; null: any
--   $15 double precision  the shortest age in seconds; null: any
--   $16 double precision  the longest age in seconds; null: any
--   the other parameters  as in sql/slice_of_jobs.sql
--
-- Defines slice, passing and reached, as sql/slice_of_jobs.sql does.
with slice as materialized (
    select
        walked.id, walked.version, null::timestamptz as due,
        (
            ($9::text is null or walked.queue = $9)
            and ($10::text is null or walked.kind = $10)
            and $11::text is null and $17::text is null and $22::text is null
            and ($14::timestamptz is null or walked.created_at >= $14)
            and ($15::double precision is null or walked.created_at <= now() - make_interval(secs => $15))
            and ($16::double precision is null or walked.created_at >= now() - make_interval(secs => $16))
            and ($12::text is null or walked.key = $12)
            and ($13::text[] is null or walked.tags @> $13)
            and ($18::jsonb is null or walked.payload @> $18)
        ) as passes
    from (
        (
            select blocked_jobs.*, blocked_jobs.xmin as version from reveille.blocked_jobs
            where $1 = 'id' and not $2 and id between $3 and $5
            order by id limit $6
        )
        union all
        (
            select blocked_jobs.*, blocked_jobs.xmin as version from reveille.blocked_jobs
            where $1 = 'id' and $2 and id between $3 and $5
            order by id desc limit $6
        )
        union all
        (
            select blocked_jobs.*, blocked_jobs.xmin as version from reveille.blocked_jobs
            where $1 = 'queue' and not $2 and queue = $9 and id between $3 and $5
            order by queue, id limit $6
        )
        union all
        (
            select blocked_jobs.*, blocked_jobs.xmin as version from reveille.blocked_jobs
            where $1 = 'queue' and $2 and queue = $9 and id between $3 and $5
            order by queue desc, id desc limit $6
        )
        union all
        (
            select blocked_jobs.*, blocked_jobs.xmin as version from reveille.blocked_jobs
            where $1 = 'ids' and id between $3 and $5 and id = any ($8::bigint[])
            order by id limit $6
        )
    ) as walked
), passing as materialized (
    select id, version, due from slice where passes order by case when $2 then id end desc, id limit $7
), reached as (
    select
        (select count(*) from slice) as walked, (select count(*) from passing) as passed, false as is_too_many,
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
