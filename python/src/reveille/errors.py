"""How a task ends its attempt otherwise than by success, and the errors of this package."""

from __future__ import annotations

from datetime import timedelta

__all__ = ["InvalidJob", "Lost", "Permanent", "Retry", "RequestFailed", "Snooze", "seconds"]


def seconds(length: float | timedelta, name: str) -> float:
    """Returns a length of time as a number of seconds. `name` is for the error.

    Raises `ValueError` if it is negative or not finite.
    """
    number = length.total_seconds() if isinstance(length, timedelta) else float(length)
    if not 0 <= number < 1e10:
        raise ValueError(f"{name} must be a number of seconds from 0 on, or a timedelta, not {length!r}")
    return number


class Retry(Exception):
    """Raise it in a task: the attempt has failed, and the next one starts after `after`.

    Without `after`, the retry policy decides: the delay doubles from 1 s to a day.
    """

    def __init__(self, error: str = "the task asks for a retry", *, after: float | timedelta | None = None) -> None:
        super().__init__(error)
        self.after = None if after is None else seconds(after, "after")


class Snooze(Exception):  # noqa: N818
    """Raise it in a task: the job is due again after `after`, and this attempt is no failure."""

    def __init__(self, after: float | timedelta) -> None:
        self.after = seconds(after, "after")
        super().__init__(f"snoozed for {self.after:g} s")


class Permanent(Exception):  # noqa: N818
    """Raise it in a task: the job is dead at once, without a further attempt."""


class Lost(Exception):  # noqa: N818
    """The worker no longer holds the job, so another worker may have it: roll back, and end the task."""


class InvalidJob(ValueError):
    """A job that cannot be stored. Nothing was sent, so the transaction stays usable."""


class RequestFailed(Exception):
    """The worker did not do what the task has asked for."""
