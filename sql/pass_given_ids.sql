-- Move the sequence of job ids past all that were given out, where it is behind, as after a restore.
select reveille.pass_given_ids()
