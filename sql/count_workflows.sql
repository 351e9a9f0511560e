-- Counts the workflows in some states, each state up to a maximum.
--
--   $1 text[]  the states
--   $2 bigint  the maximum
--
-- Returns one row as JSON for each state: state, and workflows. With `state = asked.state`, the planner might read all
-- workflows by their ids.
select jsonb_build_object('state', asked.state, 'workflows', (
    select count(*)
    from (
        select from reveille.workflow_status
        where state >= asked.state and (state, id) < (asked.state, 9223372036854775807)
        order by state, id limit $2
    ) as bounded
)) as record
from unnest($1) as asked (state)
