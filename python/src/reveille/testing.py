"""Tests without a worker: see what was enqueued, or run it at once.

    with reveille.testing.captured() as jobs:
        sign_up("ada@example.org")
    assert [job.payload for job in jobs.of(send_welcome)] == [{"user_id": 7}]

    with reveille.testing.inline():
        sign_up("ada@example.org")      # send_welcome has run
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from .current import CurrentJob, current
from .enqueuing import stand_ins
from .new_job import Enqueued, NewJob
from .tasks import Handler, Task, handlers

__all__ = ["Captured", "captured", "inline", "work"]

_ids = itertools.count(1)


class Captured(list[NewJob]):
    """The jobs that were enqueued, in their order."""

    def __init__(self) -> None:
        super().__init__()
        # The ids that the enqueues were answered with, by the identities of the jobs.
        self._ids: dict[int, int] = {}

    def of(self, task: Task[Any, Any]) -> list[NewJob]:
        """Returns the jobs of a task."""
        return [job for job in self if job.kind == task.kind]

    def work(self) -> list[Any]:
        """Works all jobs, and those that they enqueue, until none is left. Returns their results."""
        results = []
        stand_ins.append(self._keep)
        try:
            while self:
                results.append(work(self.pop(0)))
        finally:
            stand_ins.remove(self._keep)
        return results

    def _keep(self, job: NewJob) -> Enqueued:
        unique = job.options.get("unique_key")
        for other in self:
            if unique is not None and (other.kind, other.options.get("unique_key")) == (job.kind, unique):
                return Enqueued(self._ids.get(id(other), 0), True)
        self.append(job)
        self._ids[id(job)] = number = next(_ids)
        return Enqueued(number, False)


@contextmanager
def captured() -> Iterator[Captured]:
    """Keeps the jobs that are enqueued, and sends nothing: the connection may be `None`."""
    jobs = Captured()
    stand_ins.append(jobs._keep)
    try:
        yield jobs
    finally:
        stand_ins.remove(jobs._keep)


@contextmanager
def inline() -> Iterator[None]:
    """Works each job at the place where it is enqueued, and sends nothing. Errors of tasks come out there."""

    def work_now(job: NewJob) -> Enqueued:
        work(job)
        return Enqueued(next(_ids), False)

    stand_ins.append(work_now)
    try:
        yield
    finally:
        stand_ins.remove(work_now)


def work(job: NewJob, **facts: Any) -> Any:
    """Works a job, and returns its result. `facts` are members of the current job, such as `attempt=2`.

    The payload takes the way that it would take to a worker: to JSON and back. Raises what the task raises.
    """
    handler = handlers.get(job.kind)
    if handler is None:
        raise LookupError(f"no task has the kind {job.kind!r}")
    options = job.options
    message = {
        "run": 0, "id": next(_ids), "kind": job.kind, "queue": options.get("queue", "default"), "attempt": 1,
        "failures": 0, "max_attempts": options.get("max_attempts", 20), "key": options.get("key"),
        "tags": list(options.get("tags") or ()), "metadata": dict(options.get("metadata") or {}), "timeout": None,
        "payload": json.loads(job.json)["payload"],
    }  # fmt: skip
    return _call(handler, CurrentJob(message | facts, _NoWorker()))


def _call(handler: Handler, job: CurrentJob) -> Any:
    def call() -> Any:
        current.set(job)
        return asyncio.run(handler.call(job.payload)) if handler.is_async else handler.call(job.payload)

    context = contextvars.copy_context()
    if not (handler.is_async and _in_a_loop()):
        return context.run(call)
    # An event loop cannot run within another one of its thread.
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(context.run(call))
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=run, name="reveille-inline")
    thread.start()
    thread.join()
    return result.result()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _NoWorker:
    """Takes the place of the worker: progress is dropped, and jobs go where all jobs of the test go."""

    def progress(self, run: int, value: str) -> None:
        pass

    def enqueue(self, run: int, jobs: str) -> Future[list[Enqueued]]:
        answer: Future[list[Enqueued]] = Future()
        if not stand_ins:
            answer.set_exception(RuntimeError("there is no worker: use captured() or inline()"))
            return answer
        answer.set_result([stand_ins[-1](_new_job(job)) for job in json.loads(jobs)])
        return answer

    def encrypts(self, kind: str) -> bool:
        return True

    def may_wait(self) -> bool:
        return True


def _new_job(job: dict[str, Any]) -> NewJob:
    kind, payload = job.pop("kind"), job.pop("payload")
    return NewJob.of(kind, payload, **job)
