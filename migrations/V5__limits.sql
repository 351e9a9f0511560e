-- Limits of queues: how many of their jobs run at once and how many start in a time, all workers together, in a queue and for
-- each key in it; and order per key. A queue that has none pays nothing: what only limits need is kept for their jobs alone.

alter table reveille.queues
    drop constraint limits_are_not_enforced_yet,
    add column ordered boolean not null default false,
    add column limited text generated always as (
        case
            when ordered or max_running_per_key is not null or rate_per_key is not null then 'key'
            when max_running is not null or rate_limit is not null then 'queue'
        end
    ) stored,
    add constraint limits_are_positive check (
        max_running > 0 and max_running_per_key > 0 and rate_limit > 0 and rate_burst > 0 and rate_per_key > 0
    ),
    add constraint rate_period_is_1_millisecond_to_30_days check (
        rate_period between interval '1 millisecond' and interval '30 days'
    );

comment on column reveille.queues.max_running is 'At most so many of its jobs run at once, all workers together; null: no limit.';
comment on column reveille.queues.max_running_per_key is 'At most so many of its jobs with the same key run at once; null: no limit.';
comment on column reveille.queues.rate_limit is 'At most so many of its jobs start in each rate_period; null: no limit.';
comment on column reveille.queues.rate_period is 'The time that rate_limit and rate_per_key are for; null: 1 second.';
comment on column reveille.queues.rate_burst is 'How many may start at once after a rest, of the queue and of each key; null: 1.';
comment on column reveille.queues.rate_per_key is 'At most so many of its jobs with the same key start in each rate_period; null: no limit.';
comment on column reveille.queues.ordered is 'Whether its jobs with the same key run one at a time, in the order of their ids.';
comment on column reveille.queues.limited is 'What its limits are about: key, queue, or nothing (null).';

alter table reveille.jobs add column limited boolean;
comment on column reveille.jobs.limited is 'Whether its reservation counts for its queue''s limits: set when it is claimed from a queue that has some.';

-- What runs, of each queue and key.
create index jobs_limited on reveille.jobs (queue, key) where limited and reserved_at is not null;
-- What waits, of each key: the keys take turns.
create index jobs_turn on reveille.jobs (queue, key, priority, available_at, id) where reserved_at is null and key is not null;
-- The first of each key.
create index jobs_order on reveille.jobs (queue, key, id) where key is not null;

create table reveille.rates (
    queue               text        not null,
    key                 text        not null,
    next_at             timestamptz not null,
    primary key (queue, key)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

comment on table reveille.rates is 'How far queues and keys with a limited rate have used it up; whoever is not in here may start jobs.';
comment on column reveille.rates.queue is 'The queue.';
comment on column reveille.rates.key is 'The key; empty for the queue as a whole.';
comment on column reveille.rates.next_at is 'When all that has started is paid for, at an even pace. Jobs may start up to the burst ahead of it.';

-- With its owner's rights: who sets queues need not be able to change jobs.
create function reveille.limits_changed() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op <> 'DELETE' and new.limited is not null then
        update reveille.jobs set limited = true where queue = new.name and reserved_at is not null and limited is not true;
    end if;
    if tg_op = 'INSERT' and new.limited is null or tg_op = 'DELETE' and old.limited is null then
        return null;
    end if;
    perform reveille.ring(array[case when tg_op = 'DELETE' then old.name else new.name end]);
    return null;
end
$$;
comment on function reveille.limits_changed() is
    'When a queue gets limits, what runs counts for them; when they change, its workers look whether more may run.';

create trigger limits_changed
    after insert or delete or update of max_running, max_running_per_key, rate_limit, rate_period, rate_burst, rate_per_key, ordered
    on reveille.queues for each row execute function reveille.limits_changed();

create view reveille.queue_limits as
select
    queues.name as queue,
    queues.max_running,
    running.counted as running,
    queues.max_running_per_key,
    queues.ordered,
    running.keys as running_keys,
    running.most as most_running_per_key,
    queues.rate_limit,
    coalesce(queues.rate_period, interval '1 second') as rate_period,
    coalesce(queues.rate_burst, 1) as rate_burst,
    queues.rate_per_key,
    rates.next_at as rate_used_until
from reveille.queues
cross join lateral (
    select coalesce(sum(counted), 0)::bigint as counted, count(key) as keys, coalesce(max(counted) filter (where key is not null), 0) as most
    from (
        select key, count(*) as counted from reveille.jobs
        where jobs.queue = queues.name and jobs.limited and jobs.reserved_at is not null
        group by key
    ) as by_key
) as running
left join reveille.rates on rates.queue = queues.name and rates.key = ''
where queues.limited is not null;
comment on view reveille.queue_limits is 'The queues that have limits, and how far these are used.';
comment on column reveille.queue_limits.running is 'How many of its jobs workers hold.';
comment on column reveille.queue_limits.running_keys is 'How many keys have jobs that workers hold.';
comment on column reveille.queue_limits.most_running_per_key is 'The most that workers hold of one key.';
comment on column reveille.queue_limits.rate_used_until is 'When all that has started is paid for at an even pace; null or past: the whole burst may start at once.';
