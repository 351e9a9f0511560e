-- Moves the sequence of job ids past all ids in use, if some are above the sequence's value, as after a restore.
select reveille.pass_given_ids()
