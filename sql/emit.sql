-- Emits an event.
--
--   $1 text   the event's name
--   $2 jsonb  the payload
--
-- Returns one row. first: true if the event was not there before.
select reveille.emit($1, $2) as first
