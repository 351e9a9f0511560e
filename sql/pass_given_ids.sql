-- Moves the sequence of job ids past all ids in use, if it is behind them, as after a restore.
select reveille.pass_given_ids()
