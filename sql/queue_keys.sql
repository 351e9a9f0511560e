-- Returns the keys of a queue whose jobs wait: up to 50 of the first 200 keys in the order of their names, those with
-- the most waiting jobs first.
--
--   $1 text  the queue's name
--
-- Returns one row as JSON for each key: key; waiting, counted up to 1,000; running; and has_more, true if the queue has
-- 200 such keys or more.
--
-- The recursion jumps from key to key in the index jobs_turn.
with recursive keys as (
    (
        select key from reveille.job_list
        where queue = $1 and reserved_at is null and paused_by is null and key is not null
        order by queue, key limit 1
    )
    union all
    select (
        select list.key from reveille.job_list as list
        where list.queue = $1 and list.reserved_at is null and list.paused_by is null and list.key > keys.key
        order by list.queue, list.key limit 1
    )
    from keys
    where keys.key is not null
), first_keys as materialized (
    select key from keys where key is not null limit 200
), held as (
    select list.key, count(*) as running
    from reveille.held_jobs() as held
    join reveille.job_list as list on list.id = held.id
    where held.queue = $1
    group by list.key
)
select jsonb_build_object(
    'key', first_keys.key, 'waiting', counts.waiting, 'running', coalesce(held.running, 0),
    'has_more', (select count(*) from first_keys) = 200
) as record
from first_keys
left join held on held.key = first_keys.key
cross join lateral (
    select count(*) as waiting
    from (
        select from reveille.job_list as list
        where list.queue = $1 and list.key = first_keys.key and list.reserved_at is null and list.paused_by is null
        limit 1000
    ) as bounded
) as counts
order by counts.waiting desc, first_keys.key
limit 50
