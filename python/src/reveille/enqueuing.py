"""Enqueuing jobs on the connection that the application has, in its transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, overload

from .connections import AsyncConnection, Row, fetch
from .current import current
from .new_job import AllEnqueuedNow, Enqueued, EnqueuedNow, NewJob

_STATEMENT = "select place, id, existed from {schema}.enqueue_json(cast({0} as jsonb)) order by place"

# What takes the jobs in place of the database, while a test says so.
StandIn = Callable[[NewJob], Enqueued]
stand_ins: list[StandIn] = []


@overload
def enqueue(connection: AsyncConnection, job: NewJob) -> Awaitable[Enqueued]: ...
@overload
def enqueue(connection: Any, job: NewJob) -> Enqueued: ...
def enqueue(connection: Any, job: NewJob) -> Enqueued | Awaitable[Enqueued]:
    """Enqueues a job in the transaction of a connection. Await it on an asynchronous connection."""
    if stand_ins:
        enqueued = stand_ins[-1](_with_parent(job))
        return EnqueuedNow(enqueued.id, enqueued.existed)
    return fetch(connection, _STATEMENT, [_json_of(job)], _first)


@overload
def enqueue_many(connection: AsyncConnection, jobs: Iterable[NewJob]) -> Awaitable[list[Enqueued]]: ...
@overload
def enqueue_many(connection: Any, jobs: Iterable[NewJob]) -> list[Enqueued]: ...
def enqueue_many(connection: Any, jobs: Iterable[NewJob]) -> list[Enqueued] | Awaitable[list[Enqueued]]:
    """Enqueues jobs by one statement: all or none. The answers are in the order of the jobs."""
    if stand_ins:
        return AllEnqueuedNow(stand_ins[-1](_with_parent(job)) for job in jobs)
    return fetch(connection, _STATEMENT, [f"[{','.join(map(_json_of, jobs))}]"], _all)


def _first(rows: list[Row]) -> Enqueued:
    return Enqueued(rows[0][1], rows[0][2])


def _all(rows: list[Row]) -> list[Enqueued]:
    return [Enqueued(id, existed) for _, id, existed in rows]


def _json_of(job: NewJob) -> str:
    """Returns the JSON of a job, as it is sent."""
    if job.options.get("encrypted"):
        # The module needs PyNaCl, which not everyone has.
        from .encryption import sealed

        job = sealed(job)
    return _with_parent(job).json


def _with_parent(job: NewJob) -> NewJob:
    """Returns a job with its parent: the job that a task works is the parent of those that the task enqueues."""
    parent = current.get()
    if parent is None or job.options.get("parent_id") is not None:
        return job
    return NewJob(job.kind, job.payload, job.options, f'{{"parent_id":{parent.id},{job.json[1:]}')
