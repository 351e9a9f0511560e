"""The job that a task works now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, Protocol

from . import json_text
from .connections import AsyncConnection, Row, fetch
from .errors import Lost, RequestFailed
from .new_job import Enqueued, NewJob

_LARGEST_PROGRESS = 8 << 10
_COMPLETE_IN = """
select {schema}.complete_in(
    cast({0} as bigint), cast({1} as bigint), cast({2} as int), cast({3} as timestamptz), cast({4} as float8)
)
"""

current: ContextVar[CurrentJob | None] = ContextVar("reveille_current_job", default=None)


class Worker(Protocol):
    """What a running job needs of the side of the worker."""

    def progress(self, run: int, value: str) -> None:
        """Reports the progress of a run, as JSON. Any thread may call it."""

    def enqueue(self, run: int, jobs: str) -> Future[list[Enqueued]]:
        """Asks the worker to enqueue an array of jobs. Any thread may call it."""

    def encrypts(self, kind: str) -> bool:
        """Returns true if the worker encrypts the jobs of this kind that it enqueues."""

    def may_wait(self) -> bool:
        """Returns false in the thread that must not wait: that of the event loop."""


class CurrentJob:
    """The job that a task works now: its facts, and what the task can do about it."""

    def __init__(self, message: dict[str, Any], worker: Worker) -> None:
        self._worker = worker
        self._started = time.monotonic()
        self._stopped: str | None = None
        self._transaction: str | None = None
        self._run: int = message["run"]
        self._reserved_at: str = message.get("reserved_at", "")
        self.worker: str = message.get("worker", "0")
        self.id: int = message["id"]
        self.kind: str = message["kind"]
        self.queue: str = message["queue"]
        self.payload: Any = message.get("payload")
        self.attempt: int = message["attempt"]
        self.failures: int = message["failures"]
        self.max_attempts: int = message["max_attempts"]
        self.key: str | None = message.get("key")
        self.tags: list[str] = message.get("tags") or []
        self.metadata: dict[str, Any] = message.get("metadata") or {}
        self.timeout: float | None = message.get("timeout")

    @property
    def is_last_attempt(self) -> bool:
        """True if a failure now would be the last one."""
        return self.failures + 1 >= self.max_attempts

    @property
    def stop_reason(self) -> str | None:
        """Why the task should stop: `cancelled`, `timed_out`, `shutdown` or `lost`; `None` if it should go on."""
        return self._stopped

    def cancelled(self) -> bool:
        """Returns true once the task should stop. A task that is no coroutine asks now and then, and returns."""
        return self._stopped is not None

    @property
    def transaction(self) -> str | None:
        """The transaction in which the task has completed the job, if it has."""
        return self._transaction

    def stop(self, reason: str) -> None:
        """Asks the task to stop. The worker's cancels end here; a test may call it, too."""
        self._stopped = reason

    def progress(self, value: object) -> None:
        """Reports how far the task is: any JSON of up to 8 KiB. Call it as often as you like; the latest one counts."""
        encoded = json_text.encode(value, "progress")
        if json_text.size(encoded) > _LARGEST_PROGRESS:
            raise ValueError(f"progress has {json_text.size(encoded)} bytes of JSON; it may have {_LARGEST_PROGRESS}")
        self._worker.progress(self._run, encoded)

    def enqueue(self, *jobs: NewJob) -> list[Enqueued]:
        """Enqueues jobs by the worker's connection, at once: all or none. Their parent is this job.

        For tasks that are no coroutines. Raises `RequestFailed` with the worker's error.
        """
        if not self._worker.may_wait():
            raise RuntimeError("in an async task, write `await current_job().aenqueue(…)`")
        return self._worker.enqueue(self._run, self._array_of(jobs)).result()

    async def aenqueue(self, *jobs: NewJob) -> list[Enqueued]:
        """Enqueues jobs as `enqueue` does, for async tasks."""
        return await asyncio.wrap_future(self._worker.enqueue(self._run, self._array_of(jobs)))

    def _array_of(self, jobs: tuple[NewJob, ...]) -> str:
        """Returns the JSON of jobs. Their payloads are plain text: the worker encrypts them."""
        for job in jobs:
            if job.options.get("encrypted") and not self._worker.encrypts(job.kind):
                raise RequestFailed(
                    f"a job of the kind {job.kind!r} must be encrypted, and the worker has no keys for this kind: "
                    "start it with REVEILLE_ENCRYPTION_KEYS, and with --encrypt-kind for each such kind or for none"
                )
        return f"[{','.join(job.json for job in jobs)}]"

    def complete_in(self, connection: Any | AsyncConnection) -> Any:
        """Completes the job in the transaction of a connection, together with the writes of the task.

        Commit, and return: then the writes and the end of the job have happened, or none of them. Await it on an
        asynchronous connection. Raises `Lost` if the worker no longer holds the job: roll back then.
        """
        seconds = time.monotonic() - self._started
        parameters = [str(self.id), self.worker, str(self.attempt), self._reserved_at, f"{seconds:.6f}"]
        completed: None | Awaitable[None] = fetch(connection, _COMPLETE_IN, parameters, self._completed)
        return completed

    def _completed(self, rows: list[Row]) -> None:
        if rows[0][0] is None:
            raise Lost(f"the worker no longer holds the job {self.id}")
        self._transaction = str(rows[0][0])

    def __repr__(self) -> str:
        return f"<job {self.id} of the kind {self.kind!r}, attempt {self.attempt}>"


def current_job() -> CurrentJob:
    """Returns the job that this task works. Raises `LookupError` outside a task."""
    job = current.get()
    if job is None:
        raise LookupError("there is no current job: this code does not run in a task that a worker has started")
    return job
