"""Results of tasks of Django, as Reveille's tables have them."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from traceback import format_exception
from typing import Any, Literal

from django.tasks.base import Task, TaskError, TaskResult, TaskResultStatus
from django.utils import timezone

from ..arguments import DoesNotFit

# A job is in one of three tables, by its state.
STATEMENT = """
with given as (select cast({0} as bigint) as id)
select job.status, job.kind, job.payload, job.created_at, job.started_at, job.finished_at, job.errors, job.result,
    job.worker
from (
    select
        case when live.reserved_at is null then 'READY' else 'RUNNING' end as status, live.kind,
        cast(live.payload as text) as payload, live.created_at, live.reserved_at as started_at,
        cast(null as timestamptz) as finished_at, cast(live.errors as text) as errors, cast(null as text) as result,
        cast(live.reserved_by as text) as worker
    from {schema}.jobs as live where live.id = (select id from given)
    union all
    select
        'FAILED', dead.kind, cast(dead.payload as text), dead.created_at,
        dead.finished_at - make_interval(secs => dead.run_seconds), dead.finished_at, cast(dead.errors as text), null,
        cast(dead.worker as text)
    from {schema}.dead_jobs as dead where dead.id = (select id from given)
    union all
    select
        case finished.outcome when 'completed' then 'SUCCESSFUL' else 'FAILED' end, finished.kind,
        cast(finished.payload as text), finished.created_at,
        finished.finished_at - make_interval(secs => finished.run_seconds), finished.finished_at,
        cast(finished.errors as text), cast(finished.result as text), cast(finished.worker as text)
    from {schema}.finished_jobs as finished where finished.id = (select id from given)
) as job
limit 1
"""
# The first line of an error that a child has written.
_CLASS = re.compile(r"([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)
_OF_REASON = {"timed_out": "builtins.TimeoutError", "lost": "reveille.errors.Lost"}


def new(task: Task, backend: str, args: Any, kwargs: Any) -> TaskResult:
    """Returns the result of a task that has not begun."""
    return TaskResult(
        task=task,
        id="",
        status=TaskResultStatus.READY,
        enqueued_at=timezone.now(),
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=list(args),
        kwargs=dict(kwargs),
        backend=backend,
        errors=[],
        worker_ids=[],
    )


def arguments_of(payload: Any) -> tuple[list[Any], dict[str, Any]]:
    """Returns the arguments that a payload has. Raises `DoesNotFit` for a payload that no task of Django has."""
    args, kwargs = (payload.get("args", []), payload.get("kwargs", {})) if isinstance(payload, dict) else (None, None)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise DoesNotFit("the payload of a task of Django has an array `args` and an object `kwargs`")
    return args, kwargs


def decrypted(row: Sequence[Any]) -> Sequence[Any]:
    """Returns a row of the statement with all that is encrypted in it as plain text.

    Raises `reveille.encryption.CannotDecrypt` or `MissingKeys` if this program cannot decrypt it.
    """
    if not any('"reveille_encrypted' in (text or "").replace("\\", "") for text in (row[2], row[6], row[7])):
        return row
    # The module needs PyNaCl, which not everyone has.
    from ..encryption import is_encrypted, keys_of_program

    keys, kind = keys_of_program(), row[1]
    status, _, payload, *times, errors, value, worker = row
    if is_encrypted(payload):
        payload = json.dumps(keys.decrypt(kind, "payload", payload))
    if value is not None and is_encrypted(value):
        value = json.dumps(keys.decrypt(kind, "result", value))
    failures = json.loads(errors or "[]")
    for entry in failures:
        entry["error"] = keys.decrypt(kind, "error", entry.get("error") or "")
    return [status, kind, payload, *times, json.dumps(failures), value, worker]


def of_row(id: str, task: Task, backend: str, row: Sequence[Any]) -> TaskResult:
    """Returns the result of a job, from a row of the statement."""
    status, _, payload, enqueued_at, started_at, finished_at, errors, value, worker = row
    args, kwargs = arguments_of(json.loads(payload))
    failures = json.loads(errors or "[]")
    last = failures[-1] if failures else None
    attempted_at = started_at or (datetime.datetime.fromisoformat(last["at"]) if last and "at" in last else None)
    result = TaskResult(
        task=task,
        id=id,
        status=TaskResultStatus(status),
        enqueued_at=enqueued_at,
        started_at=started_at,
        finished_at=finished_at,
        last_attempted_at=attempted_at,
        args=args,
        kwargs=kwargs,
        backend=backend,
        errors=[_error_of_entry(entry) for entry in failures],
        worker_ids=[str(entry.get("worker")) for entry in failures],
    )
    if worker is not None and status != "FAILED":
        result.worker_ids.append(worker)
    if value is not None:
        object.__setattr__(result, "_return_value", json.loads(value))
    return result


def error_of(error: BaseException) -> TaskError:
    """Returns an exception as an error of a result."""
    path = f"{type(error).__module__}.{type(error).__qualname__}"
    return TaskError(exception_class_path=path, traceback="".join(format_exception(error)))


def _error_of_entry(entry: dict[str, Any]) -> TaskError:
    text = entry.get("error") or ""
    path = _OF_REASON.get(entry.get("reason", ""))
    if path is None:
        found = _CLASS.match(text)
        name = found[1] if found else "Exception"
        path = name if "." in name else f"builtins.{name}"
    return TaskError(exception_class_path=path, traceback=text)


def priority_of(task: Task) -> Literal[0, 1, 2, 3]:
    """Returns the priority of a job: urgent above 66, high above 0, normal at 0, low below."""
    if task.priority > 66:
        return 0
    if task.priority > 0:
        return 1
    return 2 if task.priority == 0 else 3


def aware(time: datetime.datetime) -> datetime.datetime:
    """Returns a time with a zone: without one, it is in Django's current time zone."""
    return timezone.make_aware(time) if timezone.is_naive(time) else time
