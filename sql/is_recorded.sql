-- What became of a job's completion in a transaction (sql/complete.sql).
--
--   $1 text    the transaction's id
--   $2 bigint  id        $3 bigint       worker
--   $4 int     attempts  $5 timestamptz  reserved_at
--
-- One row: null while the transaction is under way, then whether the reservation is no more.
select case
    when pg_xact_status($1::text::xid8) is distinct from 'in progress' then not exists (
        select from reveille.jobs
        where id = $2 and reserved_by is not distinct from $3 and attempts = $4 and reserved_at is not distinct from $5
    )
end as recorded
