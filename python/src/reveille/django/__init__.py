"""The backend of `django.tasks` that keeps tasks in Reveille's tables, on Django's own connection.

    TASKS = {"default": {"BACKEND": "reveille.django.ReveilleBackend"}}

A task is enqueued in the transaction of `atomic()`. `python -m reveille --django --queue default=8` works them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backend import ReveilleBackend

__all__ = ["ReveilleBackend"]


def __getattr__(name: str) -> object:
    # Django before 6 has no `django.tasks`, but `--django` works there, too.
    if name == "ReveilleBackend":
        from .backend import ReveilleBackend

        return ReveilleBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
