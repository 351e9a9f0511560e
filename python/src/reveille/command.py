"""`python -m reveille MODULE…`: starts `reveille work --pipe` with the tasks of these modules."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys

from . import binary
from .child import ENCRYPTS
from .reload import work_and_reload
from .variables import KEYS, KEYS_FILE

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
    "--encryption-keys-file": "PATH",
    "--encrypt-kind": "KIND",
    "--database-url": "URL",
    "--listen-url": "URL",
    "--schema": "SCHEMA",
}
_FLAGS = ("--pass-database", "--no-listen", "--accept-plain-text")
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
    child = shlex.join([sys.executable, "-m", "reveille.child", *_encrypts(options), *modules])
    work = [*command, "work", "--pipe", f"exec {child}", *passed]

    def prepare() -> int:
        return 0 if options.no_schedules else _keep_schedules(command, modules, database, options)

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


def _encrypts(options: argparse.Namespace) -> list[str]:
    """Returns the argument that tells the child which kinds the worker encrypts. The child does not get the keys."""
    if not (options.encryption_keys_file or os.environ.get(KEYS) or os.environ.get(KEYS_FILE)):
        return []
    return [f"{ENCRYPTS}{json.dumps(options.encrypt_kind or True)}"]


def _keep_schedules(
    command: list[str], modules: list[str], database: list[str], options: argparse.Namespace
) -> int:
    """Adds or changes the schedules of periodic tasks. Returns an exit status.

    Another process imports the modules, since they may start threads and open connections. It gets no keys, as tasks
    get none.
    """
    variables = dict(os.environ)
    if not any(name == KEYS or name[-1:] == "*" and KEYS.startswith(name[:-1]) for name in options.pass_env or ()):
        variables.pop(KEYS, None)
    declared = [sys.executable, "-m", "reveille.declared", *modules]
    asked = subprocess.run(declared, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=variables)
    if asked.returncode:
        return _failed(f"cannot import {', '.join(modules)}")
    for is_encrypted, arguments in json.loads(asked.stdout):
        if is_encrypted:
            try:
                arguments[2] = _encrypted(arguments[1], arguments[2], options)
            except (ImportError, ValueError) as error:
                return _failed(f"cannot encrypt the payload of the periodic task {arguments[0]!r}: {error}")
        added = subprocess.run([*command, "schedule", "add", *arguments, *database], stdout=subprocess.DEVNULL)
        if added.returncode:
            return _failed(f"cannot keep the schedule of the periodic task {arguments[0]!r}")
    return 0


def _encrypted(kind: str, payload: str, options: argparse.Namespace) -> str:
    from .encryption import keys_of_program

    keys = keys_of_program((options.encryption_keys_file or [None])[-1])
    return json.dumps(keys.encrypt(kind, "payload", json.loads(payload)))


def _failed(error: str) -> int:
    print(f"reveille: {error}", file=sys.stderr)
    return 2
