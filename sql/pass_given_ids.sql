-- Moves the sequence of job ids past all ids in use, if some are above it, as after a restore.
select reveille.pass_given_ids()
