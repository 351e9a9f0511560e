"""`python -m reveille.child [--encrypts=KINDS] MODULE…`: the command that `reveille work --pipe` starts.

`python -m reveille` writes it. KINDS are the kinds that the worker encrypts: an array in JSON, or `true` for all.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Literal

from . import ENCRYPTS, streams
from ..variables import KEYS
from .lines import Reader
from .runs import Runs, exit_soon

# The time that exit handlers and threads of the application have.
_LAST_EXIT = 4.0
_ADDRESSES = ("DATABASE_URL", "PGHOST", "PGDATABASE", "PGUSER", "PGPASSWORD")


def main(arguments: list[str]) -> int:
    """Works jobs with the tasks of these modules, until the worker says `stop` or is gone."""
    kinds, modules = _split(arguments)
    given, answers = streams.take()
    # The worker decides when a child ends. A supervisor may send these signals to all processes of a service.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    from ..tasks import handlers

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    runs = Runs(loop, handlers, answers, lambda kind: kinds is True or kind in kinds)
    reader = Reader(
        given, lambda messages: _in_loop(loop, runs.take, messages), lambda: _in_loop(loop, runs.abandon)
    )
    # The end of standard input counts already while the application is being imported.
    reader.start()
    if not import_all(modules):
        return 1
    if not handlers:
        print(f"reveille: there is no task in {', '.join(modules) or 'no module'}", file=sys.stderr)
        return 1
    loop.run_forever()
    runs.flush()
    exit_soon(_LAST_EXIT if not runs.is_abandoned else 0.5, int(runs.is_abandoned))
    if left := asyncio.all_tasks(loop):
        # Tasks of the event loop that the application's own tasks have left behind.
        for each in left:
            each.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=1))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return int(runs.is_abandoned)


def _split(arguments: list[str]) -> tuple[Literal[True] | list[str], list[str]]:
    """Returns the kinds that the worker encrypts, and the modules."""
    if arguments and arguments[0].startswith(ENCRYPTS):
        return json.loads(arguments[0].removeprefix(ENCRYPTS)), arguments[1:]
    return [], arguments


def _in_loop(loop: asyncio.AbstractEventLoop, call: object, *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]
    except RuntimeError:
        pass  # The loop has ended.


def import_all(modules: list[str]) -> bool:
    """Imports the modules of the application. Returns false, and says why on standard error, if one cannot be."""
    from ..tasks import Task, handlers

    try:
        for module in modules:
            importlib.import_module(module)
        for handler in handlers.values():
            if isinstance(handler, Task):
                handler.arguments.types()
    except BaseException as error:
        traceback.print_exc()
        if missing := [name for name in (*_ADDRESSES, KEYS) if name in str(error) and name not in os.environ]:
            name = missing[0]
            add = "" if name == KEYS else "--pass-database, or "
            print(f"reveille: tasks do not get {name} unless you say so: add {add}--pass-env {name}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status:
        sys.stderr.flush()
        os._exit(status)
    sys.exit(0)
