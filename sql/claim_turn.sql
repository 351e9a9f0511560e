-- Who claims from a full queue beside others takes one of its four turns, and has it until the end of its claim's transaction: so no more
-- than four claim at a time, and none sees what was there long before. For sql/claim_shared.sql.
--
--   $1 text    queue
--   $2 bigint  a lot: which turn to wait for, if none is free
with free as materialized (
    select
    from generate_series(0, 3) as turn
    where pg_try_advisory_xact_lock(hashtextextended('reveille.claims.' || $1, turn))
    limit 1
)
select pg_advisory_xact_lock(hashtextextended('reveille.claims.' || $1, $2 % 4))
where not exists (select from free)
