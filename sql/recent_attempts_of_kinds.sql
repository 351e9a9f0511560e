-- Counts the ended attempts of each queue and kind by time, for the bars of a chart that ends now.
--
--   $1 double precision  the seconds of a bar: a multiple of 600, since the counters hold 10 minutes
--   $2 int               the number of bars
--
-- Returns one row per queue and kind: `completed` and `failed` have the numbers of attempts by the age of the bar, 0
-- for the present one.
with bar as materialized (
    select date_bin(make_interval(secs => $1), now(), 'epoch') as present
), counted as (
    select
        queue, kind, date_bin(make_interval(secs => $1), started_at, 'epoch') as bar,
        sum(completed) as completed, sum(failed) as failed
    from reveille.kind_counters
    where started_at >= (select present from bar) - make_interval(secs => $1 * ($2::int - 1))
    group by 1, 2, 3
)
select jsonb_build_object(
    'queue', queue, 'kind', kind,
    'completed', jsonb_object_agg(round(extract(epoch from present - counted.bar) / $1::numeric), completed),
    'failed', jsonb_object_agg(round(extract(epoch from present - counted.bar) / $1::numeric), failed)
) as record
from counted
cross join bar
where counted.bar <= present
group by queue, kind
