-- Adds jobs to a workflow.
--
--   $1 bigint   the workflow
--   $2 jsonb[]  the jobs, as arrays of up to 10,000 jobs
--   $3 boolean  true if the workflow has all of its jobs now
--
-- Returns one row: the id of the workflow, and existed, which is true.
select $1 as id, true as existed
where pg_catalog.cardinality(array(
        select reveille.add_to_workflow($1, parts.part)::text
        from pg_catalog.unnest($2::jsonb[]) with ordinality as parts (part, place)
        order by parts.place
    )) >= 0
    and case when $3 then reveille.seal_workflow($1) is not null else true end
