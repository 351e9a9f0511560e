-- Nobody may be asleep any more: if so, enqueuing need not ask. A statement of its own, after the one that made it so is committed.
select reveille.note_nobody_sleeps()
