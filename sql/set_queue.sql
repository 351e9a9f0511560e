-- Changes settings of a queue. A setting that is not in $2 stays; a setting that is null in $2 gets its default.
--
--   $1 text   the queue's name
--   $2 jsonb  the settings by column name, intervals in seconds
insert into reveille.queues (
    name, retention, dead_retention, bell, max_running, max_running_per_key, ordered, rate_limit, rate_period,
    rate_burst, rate_per_key
)
values (
    $1, make_interval(secs => ($2 ->> 'retention')::double precision),
    make_interval(secs => ($2 ->> 'dead_retention')::double precision), coalesce(($2 ->> 'bell')::boolean, true),
    ($2 ->> 'max_running')::int, ($2 ->> 'max_running_per_key')::int, coalesce(($2 ->> 'ordered')::boolean, false),
    ($2 ->> 'rate_limit')::int, make_interval(secs => ($2 ->> 'rate_period')::double precision),
    ($2 ->> 'rate_burst')::int, ($2 ->> 'rate_per_key')::int
)
on conflict (name) do update
set retention = case when $2 ? 'retention' then excluded.retention else queues.retention end,
    dead_retention = case when $2 ? 'dead_retention' then excluded.dead_retention else queues.dead_retention end,
    bell = case when $2 ? 'bell' then excluded.bell else queues.bell end,
    max_running = case when $2 ? 'max_running' then excluded.max_running else queues.max_running end,
    max_running_per_key = case
        when $2 ? 'max_running_per_key' then excluded.max_running_per_key
        else queues.max_running_per_key
    end,
    ordered = case when $2 ? 'ordered' then excluded.ordered else queues.ordered end,
    rate_limit = case when $2 ? 'rate_limit' then excluded.rate_limit else queues.rate_limit end,
    rate_period = case when $2 ? 'rate_period' then excluded.rate_period else queues.rate_period end,
    rate_burst = case when $2 ? 'rate_burst' then excluded.rate_burst else queues.rate_burst end,
    rate_per_key = case when $2 ? 'rate_per_key' then excluded.rate_per_key else queues.rate_per_key end
