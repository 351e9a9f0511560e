"""Makes a worker know the tasks of a project of Django: `python -m reveille --django` imports it first."""

from __future__ import annotations

from typing import Any

import django
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections
from django.utils.module_loading import autodiscover_modules

from ..tasks import Handler, callers


def call(handler: Handler, payload: Any) -> Any:
    """Works a job. Before and after it, closes connections that are broken or too old, as Django does at requests."""
    if handler.is_async:
        return _call_async(handler, payload)
    close_old_connections()
    try:
        return handler.call(payload)
    finally:
        close_old_connections()


async def _call_async(handler: Handler, payload: Any) -> Any:
    await sync_to_async(close_old_connections)()
    try:
        return await handler.call(payload)
    finally:
        await sync_to_async(close_old_connections)()


def check() -> None:
    """Raises `ImproperlyConfigured` if a backend cannot work, as with settings that have fallen back to SQLite."""
    from django.conf import settings
    from django.tasks import task_backends

    from .backend import ReveilleBackend

    for alias in settings.TASKS:
        backend = task_backends[alias]
        for error in backend.check() if isinstance(backend, ReveilleBackend) else []:
            raise ImproperlyConfigured(
                f"TASKS[{alias!r}]: {error.msg}. Settings that read DATABASE_URL need --pass-database"
            )


django.setup()
if django.VERSION >= (6,):
    check()
autodiscover_modules("tasks")
callers.append(call)
