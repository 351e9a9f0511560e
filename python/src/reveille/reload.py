"""Working while developing: the worker starts anew when a source file changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_EVERY = 0.5
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages"})


def work_and_reload(work: list[str], prepare: Callable[[], int]) -> int:
    """Runs the command `work`, and starts it anew after each change of a source file. Returns its exit status.

    A worker that ends by itself, as at an error in the code, waits for the next change.
    """
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    while True:
        seen = sources(Path.cwd())
        # A session of its own: the terminal's Ctrl-C reaches this process, which passes it on.
        worker = subprocess.Popen(work, start_new_session=True)
        prepare()
        has_ended = False
        while not stopped and sources(Path.cwd()) == seen:
            time.sleep(_LOOK_EVERY)
            status = worker.poll()
            if not has_ended and status is not None:
                has_ended = True
                print(f"reveille: the worker has ended with status {status}; waiting for a change", file=sys.stderr)
        worker.terminate()
        if stopped:
            return worker.wait()
        print("reveille: a source file has changed; the worker starts anew", file=sys.stderr)
        # What still runs belongs to the old code: it has a second, and then goes back without a failure.
        try:
            worker.wait(1)
        except subprocess.TimeoutExpired:
            worker.terminate()
            worker.wait()


def sources(folder: Path) -> dict[str, int]:
    """Returns the source files below a folder, with the times of their last changes."""
    found: dict[str, int] = {}
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        for name in files:
            if name.endswith(".py"):
                try:
                    found[os.path.join(path, name)] = os.stat(os.path.join(path, name)).st_mtime_ns
                except OSError:
                    continue
    return found
