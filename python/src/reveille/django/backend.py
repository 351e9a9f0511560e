"""The backend of `django.tasks`."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.db import connections
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task, TaskResult
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.utils.module_loading import autodiscover_modules

from ..connections import fetch
from ..enqueuing import enqueue
from ..new_job import NewJob, Options
from ..tasks import handlers
from . import results
from .handler import DjangoHandler

_OPTIONS = ("database", "max_attempts", "timeout", "encrypted")


class ReveilleBackend(BaseTaskBackend):
    """Keeps tasks as jobs. The kind of a job is the path of its function.

    `OPTIONS` may have `database` (the alias of Django's connection, by default `default`), and `max_attempts`,
    `timeout` and `encrypted` of the jobs.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._job_options: Any = {name: self.options[name] for name in _OPTIONS[1:] if name in self.options}

    @property
    def connection(self) -> Any:
        """Django's connection, in whose transaction tasks are enqueued."""
        return connections[self.options.get("database", "default")]

    def validate_task(self, task: Task) -> None:
        """Checks a task. Each task passes here when it is defined, so that a worker knows it."""
        super().validate_task(task)
        known = handlers.get(task.module_path)
        if not isinstance(known, DjangoHandler) or known.task.func is not task.func:
            NewJob.of(task.module_path, {})
            handlers[task.module_path] = DjangoHandler(task, type(self))

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        """Enqueues a task in the transaction of Django's connection."""
        self.validate_task(task)
        result = results.new(task, self.alias, args, kwargs)
        options: Options = {"queue": task.queue_name, "priority": results.priority_of(task)}
        options.update(self._job_options)
        if task.run_after is not None:
            options["available_at"] = results.aware(task.run_after)
        payload = {"args": result.args, "kwargs": result.kwargs}
        enqueued = enqueue(self.connection, NewJob.of(task.module_path, payload, **options))
        object.__setattr__(result, "id", str(enqueued.id))
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Returns what is known of a task. Raises `TaskResultDoesNotExist`, also once its history is deleted."""
        try:
            number = int(result_id)
        except ValueError:
            raise TaskResultDoesNotExist(result_id) from None
        row: Any = fetch(self.connection, results.STATEMENT, [str(number)], lambda rows: rows[0] if rows else None)
        if row is None:
            raise TaskResultDoesNotExist(result_id)
        if row[1] not in handlers:
            # The task is perhaps of a module that this process has not imported.
            autodiscover_modules("tasks")
        handler = handlers.get(row[1])
        if not isinstance(handler, DjangoHandler):
            raise TaskResultDoesNotExist(result_id)
        return results.of_row(result_id, handler.task, self.alias, results.decrypted(row))

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Checks that Django's connection is one to Postgres."""
        found: list[checks.CheckMessage] = []
        if self.connection.vendor != "postgresql":
            alias = self.options.get("database", "default")
            error = f"Reveille needs Postgres; the database {alias!r} is another one"
            found.append(checks.Error(error, id="reveille.E001"))
        for name in self.options:
            if name not in _OPTIONS:
                hint = f"The options are {', '.join(_OPTIONS)}."
                found.append(checks.Error(f"There is no option {name!r} of the backend", hint=hint, id="reveille.E002"))
        return found


