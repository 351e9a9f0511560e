-- Lists the changes of one thing, newest first.
--
--   $1 jsonb   the thing, such as {"job": 7}
--   $2 bigint  the maximum number of actions
--
-- Returns one row as JSON for each action. The condition on `filter` is that of the index.
select to_jsonb(actions) as record
from reveille.action_status as actions
where target = $1 and not (target ? 'filter')
order by id desc
limit $2
