"""The child of `reveille work --pipe`: it runs tasks, by the protocol of `docs/reference/pipe.md`.

`streams` keeps standard output for the protocol, `lines` takes the worker's lines in a thread of their own, `runs` runs
the tasks in an event loop and a pool of threads, and `answers` has the lines that the child writes.
"""

# The argument with which `python -m reveille` tells the child which kinds the worker encrypts.
ENCRYPTS = "--encrypts="
