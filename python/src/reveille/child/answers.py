"""The lines that a child writes."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

from .. import json_text
from ..arguments import DoesNotFit
from ..errors import Permanent, Retry, Snooze

_LARGEST_RESULT = 8 << 20
_LONGEST_ERROR = 8 << 10
_MOST_CAUSES = 5
_PACKAGE = str(Path(__file__).parent.parent) + "/"
_log = logging.getLogger("reveille")


def ready(kinds: list[str]) -> str:
    """Returns the first line: the child is ready for jobs of these kinds."""
    return json.dumps({"type": "ready", "version": 1, "kinds": kinds})


def done(run: int, result: object, transaction: str | None) -> str:
    """Returns the answer to a run that succeeded. A result that cannot be kept is left out, and logged."""
    members = "" if transaction is None else f',"transaction":{json.dumps(transaction)}'
    if result is not None:
        try:
            encoded = json_text.encode(result, "the result")
            if json_text.size(encoded) > _LARGEST_RESULT:
                raise ValueError(f"the result has {json_text.size(encoded)} bytes of JSON, more than {_LARGEST_RESULT}")
            members += f',"result":{encoded}'
        except ValueError as error:
            _log.warning("the job is completed without its result: %s", error)
    return f'{{"type":"done","run":{run}{members}}}'


def ended(run: int, error: BaseException, stopped: str | None) -> str:
    """Returns the answer to a run that ended by an exception. `stopped`: why the worker had asked the task to stop."""
    try:
        return _ended(run, error, stopped)
    except Exception:
        # An exception whose own methods fail must not leave the run without an answer.
        return json.dumps({"type": "fail", "run": run, "error": f"a {type(error).__name__} that has no text"})


def _ended(run: int, error: BaseException, stopped: str | None) -> str:
    if isinstance(error, Snooze):
        return json.dumps({"type": "snooze", "run": run, "for": error.after})
    message: dict[str, Any] = {"type": "fail", "run": run}
    if isinstance(error, Retry):
        message |= {"error": _clean(str(error)), "retry_in": error.after}
    elif isinstance(error, DoesNotFit):
        message |= {"error": _clean(f"the payload does not fit the task: {error}"), "permanent": True}
    elif isinstance(error, Permanent):
        message |= {"error": _clean(str(error) or "the task says that it can never succeed"), "permanent": True}
    elif stopped is not None and type(error).__name__ == "CancelledError":
        message |= {"error": f"the task was stopped: {stopped}"}
    else:
        message |= {"error": _described(error)}
    return json.dumps(message)


def progress(run: int, value: str) -> str:
    """Returns a report, whose value is JSON."""
    return f'{{"type":"progress","run":{run},"value":{value}}}'


def enqueue(request: int, run: int, jobs: str) -> str:
    """Returns a request for jobs, which are JSON."""
    return f'{{"type":"enqueue","request":{request},"run":{run},"jobs":{jobs}}}'


def _described(error: BaseException) -> str:
    """Returns the error in one line, and below it from where it came, without the lines of this package.

    Its causes follow in the same way.
    """
    described: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(described) < _MOST_CAUSES:
        frames = traceback.extract_tb(cause.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
        first = "".join(traceback.format_exception_only(type(cause), cause)).strip()
        described.append(f"{first}\n{''.join(traceback.format_list(own or frames))}".rstrip())
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return _clean("\ncaused by: ".join(described))


def _clean(text: str) -> str:
    """Returns a text that Postgres can store. A long one loses its middle."""
    text = text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
    if len(text) > _LONGEST_ERROR:
        text = f"{text[: _LONGEST_ERROR // 4]}\n…\n{text[-_LONGEST_ERROR // 2 :]}"
    return text
