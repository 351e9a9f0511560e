-- The live jobs of one slice that pass a filter. This is the first part of a statement. Another file, such as
-- sql/slice_rows.sql or sql/slice_cancelled.sql, has the rest.
--
--   $1  text              the walk, which is the way to the jobs:
--                         id: all jobs; queue: the jobs of one queue, if 10,000 or fewer of them wait;
--                         due: the waiting jobs of one queue, in the order of their due times;
--                         key: the jobs of one queue and key; failing: the jobs with failures;
--                         held: the jobs that workers hold; parked: the parked jobs, if they are 10,000 or fewer;
--                         ids: the jobs with the ids $8
--   $2  boolean           true: the walk goes from the highest id down
--   $3  bigint            the lowest id of the slice; in the walk due: the id at which the last slice ended
--   $4  text              in the walk due: the due time at which the last slice ended; null: the walk begins
--   $5  bigint            the highest id of the slice
--   $6  int               the maximum number of jobs that the slice reads
--   $7  int               the maximum number of jobs that pass
--   $8  bigint[]          ids
--   $9  text              the queue; null: any
--   $10 text              the kind; null: any
--   $11 text              the state: ready, delayed, waiting (ready or delayed), parked, running, stuck, failing,
--                         retrying (failing and delayed), or failed_waiting (failing and waiting); null: any
--   $12 text              the key; null: any
--   $13 text[]            tags that the job has; null: any
--   $14 timestamptz       the time since which the job was created; null: any
--   $15 double precision  the shortest age in seconds; null: any
--   $16 double precision  the longest age in seconds; null: any
--   $17 text              a part of the last error; null: any
--   $18 jsonb             the payload contains this; null: any
--   $19 smallint, $20 bigint, $21 timestamptz  only for dead and finished jobs
--   $22 text              the first line of the last error, of which 500 characters count, as they do in
--                         sql/recent_dead_errors.sql; null: any
--
-- Defines:
--   slice    the jobs that the slice has read
--   passing  those that pass the filter, with the version of their rows
--   reached  one row: walked and passed, the numbers of jobs in slice and passing; last_id and last_due, the place at
--            which the slice ended; and is_too_many, true if the walk is queue or parked and more than 10,000 jobs wait
--            or are parked, so that the slice is empty
--
-- Each part of the union reads one index, in its order. $1 and $2 are known when the statement is planned, so only one
-- part remains in the plan. A slice reads few jobs, so a condition without an index makes no statement long.
with few as materialized (
    (
        select id from reveille.jobs
        where $1 = 'queue' and queue = $9 and reserved_at is null and paused_by is null
        order by queue, priority, available_at, id
        limit 10001
    )
    union all
    (
        select id from reveille.jobs
        where $1 = 'queue' and queue = $9 and paused_by is not null
        order by queue, paused_by, id
        limit 10001
    )
    union all
    (
        select id from reveille.jobs
        where $1 = 'parked' and ($9::text is null or queue = $9) and paused_by is not null
        order by queue, paused_by, id
        limit 10001
    )
    union all
    select held.id from reveille.held_jobs() as held
    where $1 in ('queue', 'held') and ($9::text is null or held.queue = $9)
    union all
    select given.id from unnest($8::bigint[]) as given (id) where $1 = 'ids'
), slice as materialized (
    select
        walked.id, walked.version, case when $1 = 'due' then walked.available_at end as due,
        (
            ($9::text is null or walked.queue = $9)
            and ($10::text is null or walked.kind = $10)
            and case $11
                when 'ready'
                then walked.reserved_at is null and walked.paused_by is null and walked.available_at <= now()
                when 'delayed'
                then walked.reserved_at is null and walked.paused_by is null and walked.available_at > now()
                when 'parked' then walked.paused_by is not null
                when 'waiting' then walked.reserved_at is null and walked.paused_by is null
                when 'running' then walked.reserved_at is not null
                when 'stuck' then exists (
                    select from reveille.workers
                    where workers.id = walked.reserved_by and walked.id = any (workers.stuck_jobs)
                )
                when 'failing' then walked.failures > 0
                when 'failed_waiting' then walked.failures > 0 and walked.reserved_at is null
                when 'retrying' then walked.failures > 0 and walked.reserved_at is null and walked.available_at > now()
                else true
            end
            and ($14::timestamptz is null or walked.created_at >= $14)
            and ($15::double precision is null or walked.created_at <= now() - make_interval(secs => $15))
            and ($16::double precision is null or walked.created_at >= now() - make_interval(secs => $16))
            and ($12::text is null or walked.key = $12)
            and ($13::text[] is null or walked.tags @> $13)
            and ($17::text is null or strpos(walked.errors -> -1 ->> 'error', $17) > 0)
            and ($22::text is null or split_part(left(walked.errors -> -1 ->> 'error', 500), E'\n', 1)
                = split_part(left($22, 500), E'\n', 1))
            and ($18::jsonb is null or walked.payload @> $18)
        ) as passes
    from (
        (
            select jobs.*, jobs.xmin as version from reveille.jobs
            where $1 = 'id' and not $2 and id between $3 and $5
            order by id limit $6
        )
        union all
        (
            select jobs.*, jobs.xmin from reveille.jobs
            where $1 = 'id' and $2 and id between $3 and $5
            order by id desc limit $6
        )
        union all
        (
            select jobs.*, jobs.xmin from reveille.jobs
            where $1 = 'failing' and not $2 and failures > 0 and id between $3 and $5
            order by id limit $6
        )
        union all
        (
            select jobs.*, jobs.xmin from reveille.jobs
            where $1 = 'failing' and $2 and failures > 0 and id between $3 and $5
            order by id desc limit $6
        )
        union all
        (
            select jobs.*, jobs.xmin from reveille.jobs
            where $1 = 'key' and not $2 and queue = $9 and key = $12 and id between $3 and $5
            order by queue, key, id limit $6
        )
        union all
        (
            select jobs.*, jobs.xmin from reveille.jobs
            where $1 = 'key' and $2 and queue = $9 and key = $12 and id between $3 and $5
            order by queue desc, key desc, id desc limit $6
        )
        union all
        (
            select jobs.*, jobs.xmin from reveille.jobs
            where $1 in ('queue', 'held', 'parked', 'ids') and not $2 and id between $3 and $5
                and id = any (array(select id from few))
                and ($1 not in ('queue', 'parked') or (select count(*) from few) <= 10000)
            order by id limit $6
        )
        union all
        (
            select jobs.*, jobs.xmin from reveille.jobs
            where $1 in ('queue', 'held', 'parked', 'ids') and $2 and id between $3 and $5
                and id = any (array(select id from few))
                and ($1 not in ('queue', 'parked') or (select count(*) from few) <= 10000)
            order by id desc limit $6
        )
        union all
        (
            select due.*
            from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
            cross join lateral (
                select jobs.*, jobs.xmin from reveille.jobs
                where $1 = 'due' and queue = $9 and jobs.priority = level.priority and reserved_at is null
                    and paused_by is null and (available_at, id) > (
                        coalesce($4::text::timestamptz, case when $11 = 'delayed' then now() else '-infinity' end), $3
                    )
                    and available_at <= case when $11 = 'ready' then now() else 'infinity' end
                order by available_at, id limit $6
            ) as due
            order by due.available_at, due.id limit $6
        )
    ) as walked
), passing as materialized (
    select id, version, due from slice where passes order by due, case when $2 then id end desc, id limit $7
), reached as (
    select
        (select count(*) from slice) as walked, (select count(*) from passing) as passed,
        $1 in ('queue', 'parked') and (select count(*) from few) > 10000 as is_too_many,
        last.id as last_id, to_jsonb(last.due) #>> '{}' as last_due
    from (values (true)) as always (one)
    left join lateral (
        select ends.id, ends.due
        from (
            select id, due from slice where (select count(*) from passing) < $7
            union all
            select id, due from passing where (select count(*) from passing) >= $7
        ) as ends
        order by ends.due desc, case when $2 then ends.id end, ends.id desc
        limit 1
    ) as last on true
)
