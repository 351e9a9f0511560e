-- Enqueue a new job that is like one that has finished: its kind, payload, queue, priority, number of attempts, key,
-- tags and metadata. It has no parent and no unique key, and its timeout is its kind's, since the history keeps none.
--
--   $1 bigint  id of the finished job
--
-- One row: the new job's id, or null if there is no such finished job, and then what is known of that id.
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
