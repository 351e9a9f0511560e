"""A task of Django as the handler of its jobs."""

from __future__ import annotations

import inspect
from typing import Any

from asgiref.sync import sync_to_async
from django.tasks.base import Task, TaskContext, TaskResult, TaskResultStatus
from django.tasks.signals import task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json

from ..arguments import DoesNotFit
from ..current import current_job
from ..errors import Permanent, Snooze
from . import results


class DjangoHandler:
    """Works the jobs of a task of Django."""

    def __init__(self, task: Task, backend: type) -> None:
        self.task, self.backend = task, backend
        self.kind: str = task.module_path
        self.function = task.func
        self.is_async = inspect.iscoroutinefunction(task.func)

    def call(self, payload: Any) -> Any:
        """Works a job. Returns its result, or a coroutine that does."""
        return self._work_async(payload) if self.is_async else self._work(payload)

    def _work(self, payload: Any) -> Any:
        result, args = self._start(payload)
        try:
            value = normalize_json(self.task.func(*args, **result.kwargs))
        except BaseException as error:
            self._failed(result, error)
            raise
        self._succeeded(result, value)
        return value

    async def _work_async(self, payload: Any) -> Any:
        # Receivers of Django's signals may use the database, which must not be done in the event loop.
        result, args = await sync_to_async(self._start)(payload)
        try:
            value = normalize_json(await self.task.func(*args, **result.kwargs))
        except BaseException as error:
            await sync_to_async(self._failed)(result, error)
            raise
        await sync_to_async(self._succeeded)(result, value)
        return value

    def _start(self, payload: Any) -> tuple[TaskResult, list[Any]]:
        args, kwargs = results.arguments_of(payload)
        job = current_job()
        result = results.new(self.task, self.task.backend, args, kwargs)
        _set(result, id=str(job.id), status=TaskResultStatus.RUNNING, started_at=timezone.now())
        _set(result, last_attempted_at=result.started_at)
        result.worker_ids.extend([job.worker] * job.attempt)
        task_started.send(sender=self.backend, task_result=result)
        context = [TaskContext(task_result=result)] if self.task.takes_context else []
        return result, [*context, *result.args]

    def _succeeded(self, result: TaskResult, value: Any) -> None:
        _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
        task_finished.send(sender=self.backend, task_result=result)

    def _failed(self, result: TaskResult, error: BaseException) -> None:
        """Tells of the last failure. A task that will run again has not finished."""
        job = current_job()
        is_last = isinstance(error, (Permanent, DoesNotFit)) or job.is_last_attempt
        if isinstance(error, Snooze) or job.stop_reason in ("shutdown", "lost") or not is_last:
            return
        result.errors.append(results.error_of(error))
        _set(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
        task_finished.send(sender=self.backend, task_result=result)


def _set(result: TaskResult, **values: Any) -> None:
    """Sets members of a result, as Django's own backends do."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
