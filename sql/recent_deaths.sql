-- Counts the dead jobs by the time at which they died, for the bars of a chart that ends now.
--
--   $1 text[]            the queues; null: all
--   $2 text              the kind; null: all
--   $3 text              the reason; null: all
--   $4 double precision  the seconds of a bar
--   $5 int               the number of bars
--
-- Returns one row per queue, kind and reason with such jobs: `bars` has the number of jobs by the age of the bar, 0 for
-- the present one. Looks at the latest 50,000 jobs of each group; `is_cut` is true if there are more.
with bar as materialized (
    select
        make_interval(secs => $4) as length, date_bin(make_interval(secs => $4), now(), 'epoch') as present,
        date_bin(make_interval(secs => $4), now(), 'epoch') - make_interval(secs => $4 * ($5::int - 1)) as first
), counted as (
    select groups.queue, groups.kind, groups.reason, died.bars, died.jobs
    from bar
    cross join reveille.dead_groups() as groups
    cross join lateral (
        select
            jsonb_object_agg(round(extract(epoch from bar.present - by_bar.start) / $4::numeric), by_bar.jobs)
                filter (where by_bar.start <= bar.present) as bars,
            sum(by_bar.jobs) as jobs
        from (
            select date_bin(bar.length, latest.finished_at, 'epoch') as start, count(*) as jobs
            from (
                select listed.finished_at
                from reveille.dead_job_list as listed
                where listed.queue = groups.queue and listed.kind = groups.kind and listed.reason = groups.reason
                    and listed.finished_at >= bar.first
                -- The `order by` names all columns of the index dead_jobs_by_kind, so that the planner uses no other.
                order by listed.queue desc, listed.kind desc, listed.reason desc, listed.finished_at desc
                limit 50000
            ) as latest
            group by 1
        ) as by_bar
    ) as died
    where ($1::text[] is null or groups.queue = any ($1)) and ($2::text is null or groups.kind = $2)
        and ($3::text is null or groups.reason = $3) and groups.last_died_at >= bar.first
)
select jsonb_build_object(
    'queue', queue, 'kind', kind, 'reason', reason, 'bars', bars, 'is_cut', jobs >= 50000
) as record
from counted
where bars is not null
