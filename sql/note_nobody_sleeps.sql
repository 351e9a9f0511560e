-- Notes for the insert trigger that no worker sleeps, if none does. Runs as a separate statement, after the commit that
-- deleted the last sleeping worker's row from reveille.sleepers.
select reveille.note_nobody_sleeps()
