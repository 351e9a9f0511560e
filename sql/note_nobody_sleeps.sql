-- Tells the insert trigger that no worker sleeps, if none does. Runs as a separate statement, after the change that
-- woke the last worker is committed.
select reveille.note_nobody_sleeps()
