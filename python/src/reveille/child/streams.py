"""The streams of the protocol, out of reach of the application."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper


def take() -> tuple[int, int]:
    """Returns descriptors of the worker's lines and of the child's, which no process that the child starts inherits.

    From then on, standard input is empty, and standard output is standard error, so no `print` breaks the protocol.
    """
    given, answers = os.dup(0), os.dup(1)  # Python sets close-on-exec.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    return given, answers


def write_all(to: int, lines: bytes) -> None:
    """Writes whole lines, and waits until the pipe has them."""
    rest = memoryview(lines)
    while rest:
        rest = rest[os.write(to, rest) :]
