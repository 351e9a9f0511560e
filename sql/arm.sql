-- A worker is about to sleep on a queue: from now on its bell rings for it. Durable, so that a crash of the server does not
-- silence the bell.
--
--   $1 bigint  worker
--   $2 text    queue
with armed as (
    insert into reveille.sleepers (queue, worker) values ($2, $1) on conflict do nothing
)
select set_config('synchronous_commit', 'on', true)
