-- Counts the running jobs of a queue for the queue's limits. For this, the statement sets `limited` of these jobs, as
-- sql/claim_limited.sql does for the jobs that it claims. Runs once all claims that did not see these limits have ended
-- (sql/claims_under_way.sql).
--
--   $1 text         the queue's name
--   $2 timestamptz  limited_since of the limits
--
-- Returns one row:
--   counted     true if all running jobs are counted; false if another session, such as a settlement, has locked one,
--               or if the queue has other limits by now
--   is_current  true if the queue still has these limits
with running as materialized (
    select jobs.id
    from reveille.jobs
    where jobs.queue = $1 and jobs.reserved_at is not null and jobs.reserved_by is not null
        and jobs.limited is not true
), free as materialized (
    select jobs.ctid as place
    from reveille.jobs
    where jobs.queue = $1 and jobs.reserved_at is not null and jobs.reserved_by is not null
        and jobs.limited is not true
    for no key update skip locked
), marked as (
    update reveille.jobs set limited = true where jobs.ctid = any (array(select place from free))
), counted as (
    insert into reveille.limits as limits (queue, counted_for)
    select queues.name, queues.limited_since
    from reveille.queues
    where queues.name = $1 and queues.limited_since = $2
        and (select count(*) from running) = (select count(*) from free)
    on conflict (queue) do update set counted_for = excluded.counted_for
    returning limits.queue
)
select
    exists (select from counted) as counted,
    exists (select from reveille.queues where name = $1 and limited_since = $2) as is_current
