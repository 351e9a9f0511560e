-- Adds the jobs of one slice to the record of its run, in the transaction that changes them.
--
--   $1 bigint    the id of the run's action
--   $2 bigint    the number of jobs that the slice has changed
--   $3 bigint    the number of running jobs among these, whose handlers were asked to stop
--   $4 bigint    the number of jobs that stay dead
--   $5 bigint    the number of jobs that all slices together have passed over
--   $6 bigint[]  the jobs that the server has refused to change
--   $7 text[]    the SQLSTATE of each refusal
--   $8 bigint    the id at which the slice has ended; null: it has not moved on
--
-- The detail lists up to 100 refused jobs. It has no error messages, since a message may quote a payload.
update reveille.actions
set done = done + $2, requested = requested + $3, left_over = left_over + $4, passed_over = $5,
    refused = refused + cardinality($6::bigint[]),
    detail = case
        when cardinality($6::bigint[]) = 0 or refused >= 100 then detail
        else detail || jsonb_build_object('refused', coalesce(detail -> 'refused', '[]') || (
            select jsonb_agg(jsonb_build_object('job', job, 'code', code) order by job)
            from unnest($6::bigint[], $7::text[]) as refusal (job, code)
        ))
    end,
    last_id = greatest(last_id, $8), seen_at = clock_timestamp()
where id = $1 and ended_at is null
