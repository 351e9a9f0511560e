"""`python -m reveille.declared MODULE…`: writes the schedules of the modules' periodic tasks to standard output."""

from __future__ import annotations

import json
import os
import sys

from .child import streams
from .child.__main__ import import_all


def main(modules: list[str]) -> int:
    """Writes an array with an element for each periodic task: whether its jobs are encrypted, and the arguments of
    `reveille schedule add`.
    """
    _, answers = streams.take()
    if not import_all(modules):
        return 1
    from .tasks import Task, handlers

    tasks = (handler for _, handler in sorted(handlers.items()) if isinstance(handler, Task))
    schedules = [
        (task.schedule.job.options.get("encrypted", False), task.schedule.command())
        for task in tasks
        if task.schedule is not None
    ]
    streams.write_all(answers, json.dumps(schedules).encode())
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)
