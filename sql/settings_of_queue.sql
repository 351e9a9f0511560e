-- Reads and locks the settings of a queue, for the record of a change of them.
--
--   $1 text  the queue's name
--
-- Returns one row with the settings as JSON; no row if the queue has no settings.
select to_jsonb(settings) as record
from (
    select
        paused_at, retention, dead_retention, bell, ordered, max_running, max_running_per_key, rate_limit, rate_period,
        rate_burst, rate_per_key
    from reveille.queues
    where name = $1
    for update
) as settings
