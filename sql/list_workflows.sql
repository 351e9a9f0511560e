-- Lists workflows, newest first.
--
--   $1 text    the name; null: any
--   $2 text    the state; null: any
--   $3 bigint  only workflows with lower ids; null: all
--   $4 bigint  the maximum number of workflows
--
-- Returns one row as JSON for each workflow. Each part of the union reads one index, in its order. With `name = $1`
-- in place of the two comparisons, the planner might read all workflows by their ids; with `state = $2` in the second
-- part, all workflows in that state.
select to_jsonb(workflows) as record
from (
    select
        id, name, unique_key, state, jobs, live, blocked, completed, dead, cancelled, skipped, sealed, created_at,
        finished_at, parent_id, schedule_id
    from (
        (
            select * from reveille.workflow_status
            where $1::text is null and $2::text is null and id < coalesce($3, 9223372036854775807)
            order by id desc limit $4
        )
        union all
        (
            select * from reveille.workflow_status
            where name >= $1 and (name, id) < ($1, coalesce($3, 9223372036854775807))
                and state is not distinct from coalesce($2, state)
            order by name desc, id desc limit $4
        )
        union all
        (
            select * from reveille.workflow_status
            where $1::text is null and state >= $2 and (state, id) < ($2, coalesce($3, 9223372036854775807))
            order by state desc, id desc limit $4
        )
    ) as listed
) as workflows
order by id desc
