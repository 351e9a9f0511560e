"""Schedules of periodic tasks, which `python -m reveille` keeps in the database."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Literal

from . import json_text
from .errors import seconds
from .new_job import NewJob


@dataclass(frozen=True)
class Schedule:
    """When a periodic task runs. The name of the schedule is the kind of the task."""

    cron: str | None
    every: float | None
    time_zone: str
    catch_up: Literal["skip", "one", "all"]
    job: NewJob

    @classmethod
    def of(
        cls,
        cron: str | None,
        every: float | datetime.timedelta | None,
        time_zone: str,
        catch_up: Literal["skip", "one", "all"],
        job: NewJob,
    ) -> Schedule:
        """Checks a schedule. Raises `ValueError` unless it has either a cron text or an interval."""
        if (cron is None) == (every is None):
            raise ValueError("a periodic task needs either `cron` or `every`")
        length = None if every is None else seconds(every, "every")
        if length == 0:
            raise ValueError("every must be more than 0")
        schedule = cls(cron, length, time_zone, catch_up, job)
        schedule.command()  # Refuses options that a schedule's jobs cannot have.
        return schedule

    def command(self) -> list[str]:
        """Returns the arguments of `reveille schedule add` that keep this schedule: name, kind, payload, options.

        The payload is plain text, also if the jobs are to be encrypted.
        """
        job = self.job
        arguments = [job.kind, job.kind, json_text.encode(job.payload, "the payload")]
        arguments += ["--cron", self.cron] if self.cron else ["--every", _duration(self.every)]
        arguments += ["--time-zone", self.time_zone, "--catch-up", self.catch_up]
        options: dict[str, Any] = {name: value for name, value in job.options.items() if value is not None}
        options.pop("encrypted", None)
        for name in ("queue", "priority", "max_attempts", "key"):
            if name in options:
                arguments.append(f"--{name.replace('_', '-')}={options.pop(name)}")
        if "timeout" in options:
            arguments.append(f"--timeout={_duration(options.pop('timeout'))}")
        if "metadata" in options:
            arguments.append(f"--metadata={json_text.encode(options.pop('metadata'), 'metadata')}")
        arguments += [f"--tag={tag}" for tag in options.pop("tags", ())]
        if options:
            raise ValueError(f"the periodic task {job.kind!r} cannot have the option {min(options)!r}")
        return arguments


def _duration(length: Any) -> str:
    """Returns a length of time as an argument of the command."""
    if isinstance(length, str):
        return length
    return f"{round(seconds(length, 'a length of time') * 1_000_000)}us"
