"""`python -m reveille MODULE…`: starts `reveille work --pipe` with the tasks of these modules."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys

from . import binary
from .reload import work_and_reload

# Options of `reveille work` that are passed on, with a value or without.
_WITH_VALUE = {
    "--queue": "QUEUE[=SLOTS]",
    "--children": "N",
    "--timeout": "DURATION",
    "--poll-interval": "DURATION",
    "--grace": "DURATION",
    "--init": "WHEN",
    "--http": "ADDRESS:PORT",
    "--pass-env": "NAME",
    "--database-url": "URL",
    "--listen-url": "URL",
    "--schema": "SCHEMA",
}
_FLAGS = ("--pass-database", "--no-listen")
_OF_THE_DATABASE = ("--database-url", "--listen-url", "--schema")


def main(arguments: list[str]) -> int:
    """Keeps the schedules of periodic tasks, and works jobs until it is stopped. Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    given = vars(options)
    if not options.modules and not options.django:
        parser.error("name the modules with your tasks, such as app.tasks")
    for module in options.modules:
        if not all(part.isidentifier() for part in module.split(".")):
            parser.error(f"{module!r} is no name of a module; write app.tasks for the file app/tasks.py")
    try:
        command = [binary.find()]
    except FileNotFoundError as error:
        return _failed(str(error))
    if options.schema:
        os.environ["REVEILLE_SCHEMA"] = options.schema[-1]
    modules = [*(["reveille.django.discover"] if options.django else []), *options.modules]
    passed = [part for name in _WITH_VALUE for value in given[_name(name)] or () for part in (name, value)]
    passed += [name for name in _FLAGS if given[_name(name)]]
    database = [part for name in _OF_THE_DATABASE for value in given[_name(name)] or () for part in (name, value)]
    child = shlex.join([sys.executable, "-m", "reveille.child", *modules])
    work = [*command, "work", "--pipe", f"exec {child}", *passed]

    def prepare() -> int:
        return 0 if options.no_schedules else _keep_schedules(command, modules, database)

    if options.reload:
        # A compiled file counts as current if its source was changed within the same second.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        return work_and_reload(work, prepare)
    if status := prepare():
        return status
    # The worker takes the place of this process, so that signals reach it.
    os.execv(work[0], work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reveille",
        description="Work jobs with the tasks of Python modules.",
        epilog="The other options are those of `reveille work`; `reveille work --help` explains them.",
        allow_abbrev=False,
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="a module with tasks, such as app.tasks")
    parser.add_argument("--django", action="store_true", help="set up Django, and take the tasks of its applications")
    parser.add_argument("--reload", action="store_true", help="start anew when a source file changes, for development")
    parser.add_argument("--no-schedules", action="store_true", help="leave the schedules of periodic tasks as they are")
    for name, value in _WITH_VALUE.items():
        parser.add_argument(name, action="append", metavar=value)
    for name in _FLAGS:
        parser.add_argument(name, action="store_true")
    return parser


def _name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _keep_schedules(command: list[str], modules: list[str], database: list[str]) -> int:
    """Adds or changes the schedules of periodic tasks. Returns an exit status.

    Another process imports the modules, since they may start threads and open connections.
    """
    asked = subprocess.run(
        [sys.executable, "-m", "reveille.declared", *modules], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    if asked.returncode:
        return _failed(f"cannot import {', '.join(modules)}")
    for arguments in json.loads(asked.stdout):
        added = subprocess.run([*command, "schedule", "add", *arguments, *database], stdout=subprocess.DEVNULL)
        if added.returncode:
            return _failed(f"cannot keep the schedule of the periodic task {arguments[0]!r}")
    return 0


def _failed(error: str) -> int:
    print(f"reveille: {error}", file=sys.stderr)
    return 2
