-- Enqueues a new job like a finished job: with the same kind, payload, queue, priority, max_attempts, key, tags and
-- metadata. The new job has no parent and no unique key. Its timeout is the default of its kind, since the history
-- keeps no timeouts.
--
--   $1 bigint  the id of the finished job
--
-- Returns one row:
--   id     the id of the new job; null if the given job is not in the history
--   state  the state of the given job: finished, live, dead or unknown
with finished as (
    select * from reveille.finished_jobs where id = $1 order by finished_at desc limit 1
), again as (
    insert into reveille.jobs (queue, kind, payload, priority, max_attempts, key, tags, metadata)
    select queue, kind, payload, priority, max_attempts, key, tags, metadata from finished
    returning id
)
select
    (select id from again) as id,
    case
        when exists (select from finished) then 'finished'
        when exists (select from reveille.jobs where id = $1) then 'live'
        when exists (select from reveille.dead_jobs where id = $1) then 'dead'
        else 'unknown'
    end as state
