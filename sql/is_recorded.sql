-- Checks if a transaction that ran sql/complete.sql has completed its job.
--
--   $1 text         the id of the transaction
--   $2 bigint       the job's id
--   $3 bigint       the worker that reserved the job
--   $4 int          the attempt
--   $5 timestamptz  reserved_at
--
-- Returns one row. recorded: null while the transaction is in progress; afterwards true if the reservation is gone,
-- false if it stands.
select case
    when pg_xact_status($1::text::xid8) is distinct from 'in progress' then not exists (
        select from reveille.jobs
        where id = $2 and reserved_by is not distinct from $3 and attempts = $4 and reserved_at is not distinct from $5
    )
end as recorded
