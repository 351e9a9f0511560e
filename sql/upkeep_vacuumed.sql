-- Upkeep: notes that a round of vacuuming has ended.
update reveille.chores set done_at = clock_timestamp() where name = 'vacuum'
