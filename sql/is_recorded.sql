-- Tells what became of a job's completion in a transaction (sql/complete.sql).
--
--   $1 text         id of the transaction
--   $2 bigint       job
--   $3 bigint       worker that reserved it
--   $4 int          attempt
--   $5 timestamptz  reserved_at
--
-- Returns one row: null while the transaction is under way, then whether the reservation is gone.
select case
    when pg_xact_status($1::text::xid8) is distinct from 'in progress' then not exists (
        select from reveille.jobs
        where id = $2 and reserved_by is not distinct from $3 and attempts = $4 and reserved_at is not distinct from $5
    )
end as recorded
