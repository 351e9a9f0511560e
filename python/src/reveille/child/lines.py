"""The worker's lines, taken in a thread that runs no task."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

LONGEST_LINE = 16 << 20
_PIECE = 1 << 16
# After the end of standard input, the child exits within 5 s.
_LONGEST_END = 4.0
_RUN_OF_JOB = re.compile(rb'^\{"type":"job","run":(\d+),')
_KNOWN = frozenset({"hello", "job", "cancel", "stop", "answer"})
_OF_A_RUN = frozenset({"job", "cancel"})

Message = dict[str, Any]


class BrokenLine(Exception):
    """A line that is no message of the protocol."""


class Reader(threading.Thread):
    """Takes the worker's lines until their end."""

    def __init__(self, given: int, deliver: Callable[[list[Message]], None], end: Callable[[], None]) -> None:
        super().__init__(name="reveille-reader", daemon=True)
        self._given, self._deliver, self._end = given, deliver, end

    def run(self) -> None:
        """Delivers the messages of each piece that the worker has written."""
        try:
            self._read()
        except BrokenLine as error:
            exit_with(f"the worker wrote {error}")
        except OSError as error:
            exit_with(f"cannot read the worker's lines: {error}")
        # Tasks that do not stop must not keep the child alive.
        last = threading.Timer(_LONGEST_END, os._exit, [1])
        last.daemon = True
        last.start()
        self._end()

    def _read(self) -> None:
        rest = bytearray()
        while piece := os.read(self._given, _PIECE):
            rest += piece
            if b"\n" not in piece:
                if len(rest) > LONGEST_LINE:
                    raise BrokenLine(f"a line of more than {LONGEST_LINE} bytes")
                continue
            *lines, last = rest.split(b"\n")
            rest = last
            self._deliver([message_of(bytes(line)) for line in lines])


def message_of(line: bytes) -> Message:
    """Returns the message of a line. Raises `BrokenLine`.

    A `job` whose payload Python cannot read is returned with the member `unreadable`, which says why.
    """
    try:
        message = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BrokenLine(f"a line that is no message ({error}): {line[:100]!r}") from None
    except (ValueError, RecursionError) as error:
        # Numbers of more than 4,300 digits, and arrays in arrays in arrays, are more than Python's reader takes.
        run = _RUN_OF_JOB.match(line)
        if run is None:
            raise BrokenLine(f"a line that cannot be read ({error}): {line[:100]!r}") from None
        return {"type": "job", "run": int(run[1]), "unreadable": str(error)}
    name = message.get("type") if isinstance(message, dict) else None
    if name not in _KNOWN:
        raise BrokenLine(f"a message of an unknown type: {line[:100]!r}")
    if name in _OF_A_RUN and type(message.get("run")) is not int:
        raise BrokenLine(f"a message without `run`: {line[:100]!r}")
    return message  # type: ignore[no-any-return]


def exit_with(error: str) -> None:
    """Ends the process at once, with an error."""
    print(f"reveille: {error}", file=sys.stderr, flush=True)
    os._exit(1)
