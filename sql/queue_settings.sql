-- Returns the settings of one queue as JSON, with intervals in seconds; no row if the queue has none.
--
--   $1 text  the queue's name
select to_jsonb(queues) || jsonb_build_object(
    'retention', extract(epoch from retention), 'dead_retention', extract(epoch from dead_retention),
    'rate_period', extract(epoch from rate_period)
) as record
from reveille.queues
where name = $1
