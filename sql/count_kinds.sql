-- Adds a worker's counts of attempts by kind to reveille.kind_counters: to the row of the present 10 minutes, and to
-- the row of all times.
--
--   $1 text[]              the queue of each count
--   $2 text[]              the kind of each count
--   $3 bigint[]            the numbers of completed jobs
--   $4 bigint[]            the numbers of failed attempts
--   $5 double precision[]  the sums of the seconds from the due time to the start
--   $6 double precision[]  the sums of the run times in seconds
--   $7 bigint[]            the histograms of the times from the due time to the start, one after another
--   $8 bigint[]            the histograms of the run times, one after another
--   $9 int                 the number of buckets of a histogram
--
-- The table has at most 200 pairs of a queue and a kind. Further kinds are counted together, as the kind `(other)`.
with added as (
    select
        added.*, known.kind is not null as is_known,
        count(*) filter (where known.kind is null) over (order by place) as new_kinds
    from unnest(
        $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::double precision[], $6::double precision[]
    ) with ordinality as added (queue, kind, completed, failed, wait_seconds, run_seconds, place)
    left join reveille.kind_counters as known
        on known.queue = added.queue and known.kind = added.kind and known.started_at = '-infinity'
), named as materialized (
    select
        queue,
        case
            when is_known or new_kinds <= 200 - (
                select count(*) from reveille.kind_counters where started_at = '-infinity'
            ) then kind
            else '(other)'
        end as kind,
        completed, failed, wait_seconds, run_seconds, place
    from added
    where (select set_config('lock_timeout', '200ms', true)) is not null
), summed as (
    select
        queue, kind, sum(completed) as completed, sum(failed) as failed, sum(wait_seconds) as wait_seconds,
        sum(run_seconds) as run_seconds
    from named
    group by queue, kind
), histograms as (
    select queue, kind, pg_catalog.array_agg(waits order by bucket) as waits,
        pg_catalog.array_agg(runs order by bucket) as runs
    from (
        select
            queue, kind, bucket, sum(($7::bigint[])[(place - 1) * $9::int + bucket])::bigint as waits,
            sum(($8::bigint[])[(place - 1) * $9::int + bucket])::bigint as runs
        from named cross join generate_series(1, $9::int) as bucket
        group by queue, kind, bucket
    ) as buckets
    group by queue, kind
)
insert into reveille.kind_counters as counters (
    queue, kind, started_at, completed, failed, wait_seconds, run_seconds, waits, runs
)
select queue, kind, started_at, completed, failed, wait_seconds, run_seconds, waits, runs
from summed
join histograms using (queue, kind)
cross join (
    values ('-infinity'::timestamptz), (date_bin('10 minutes', now(), 'epoch'))
) as period (started_at)
-- Workers lock the rows in the same order, so they cannot wait for each other in a circle.
order by queue, kind, started_at
on conflict (queue, kind, started_at) do update
set completed = counters.completed + excluded.completed,
    failed = counters.failed + excluded.failed,
    wait_seconds = counters.wait_seconds + excluded.wait_seconds,
    run_seconds = counters.run_seconds + excluded.run_seconds,
    waits = reveille.sum_of_histograms(counters.waits, excluded.waits),
    runs = reveille.sum_of_histograms(counters.runs, excluded.runs)
