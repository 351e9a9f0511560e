"""A job that is to be enqueued, and the answer to an enqueue."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import json_text
from .errors import InvalidJob

if TYPE_CHECKING:
    from typing_extensions import Unpack

Priority = Literal["urgent", "high", "normal", "low", 0, 1, 2, 3]

_LARGEST_PAYLOAD = 8 << 20
_DEFAULT_LARGEST_PAYLOAD = 1 << 20
_PRIORITIES = ("urgent", "high", "normal", "low", 0, 1, 2, 3)
_UNIQUE_MODES = ("keep", "replace", "debounce")
# The options that are whole numbers, with their least and greatest values.
_WHOLE_NUMBERS = (
    ("max_attempts", 1, (1 << 31) - 1),
    ("parent_id", -1 << 63, (1 << 63) - 1),
    ("max_payload", 0, (1 << 63) - 1),
)


class Options(TypedDict, total=False):
    """What can be said of a job besides its kind and payload. The meanings are those of `reveille.enqueue`.

    With `encrypted`, the payload is encrypted when the job is enqueued. Until then, `NewJob` has plain text.
    """

    queue: str
    delay: float | datetime.timedelta | str | None
    available_at: datetime.datetime | str | None
    priority: Priority
    max_attempts: int
    timeout: float | datetime.timedelta | str | None
    unique_key: str | None
    unique_mode: Literal["keep", "replace", "debounce"]
    unique_until: str
    key: str | None
    tags: Sequence[str]
    metadata: Mapping[str, Any] | None
    parent_id: int | None
    max_payload: int
    encrypted: bool


@dataclass(frozen=True)
class NewJob:
    """A job that is to be enqueued. `json` is the parameter of `reveille.enqueue_json`, checked."""

    kind: str
    payload: Any
    options: Options
    json: str

    @classmethod
    def of(cls, kind: str, payload: Any, **options: Unpack[Options]) -> NewJob:
        """Checks a job: `NewJob.of("send_welcome", {"user_id": 7}, queue="mail")`. The payload may be any JSON.

        Raises `InvalidJob` if the table cannot keep the job.
        """
        try:
            given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
            _check(kind, given)
            given.pop("encrypted", None)
            encoded = json_text.encode(payload, "the payload")
            if _check_size(payload, encoded, given.pop("max_payload", _DEFAULT_LARGEST_PAYLOAD)):
                given["max_payload"] = _LARGEST_PAYLOAD
            members = json_text.encode({"kind": kind, **given}, "an option")
        except ValueError as error:
            raise InvalidJob(f"a job of the kind {kind!r} cannot be enqueued: {error}") from error
        return cls(kind, payload, options, f'{members[:-1]},"payload":{encoded}}}')


def _check(kind: str, given: dict[str, Any]) -> None:
    """Checks the options, and puts them into the form that `reveille.enqueue_json` takes."""
    for name in given:
        if name not in Options.__annotations__:
            alike = difflib.get_close_matches(str(name), Options.__annotations__, 1)
            raise ValueError(f"there is no option {name!r}{f'; perhaps you mean {alike[0]!r}' if alike else ''}")
    for name, text in (("kind", kind), ("queue", given.get("queue", "default"))):
        if not isinstance(text, str) or not 1 <= len(text) <= 128:
            raise ValueError(f"{name} must have 1 to 128 characters")
    for name in ("key", "unique_key"):
        if name in given and not (isinstance(given[name], str) and 1 <= json_text.size(given[name]) <= 512):
            raise ValueError(f"{name} must be a text of 1 to 512 bytes")
    _check_times(given)
    for name, value, values in (
        ("priority", given.get("priority", 2), _PRIORITIES),
        ("unique_mode", given.get("unique_mode", "keep"), _UNIQUE_MODES),
    ):
        if isinstance(value, bool) or value not in values:
            raise ValueError(f"{name} must be one of {', '.join(map(str, values))}, not {value!r}")
    for name, least, most in _WHOLE_NUMBERS:
        value = given.get(name, least)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    if not isinstance(given.get("encrypted", False), bool):
        raise ValueError(f"encrypted must be True or False, not {given['encrypted']!r}")
    tags = given.get("tags", ())
    if not isinstance(tags, (list, tuple, set, frozenset)) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("tags must be a list of texts")
    if len(tags) > 64 or sum(map(json_text.size, tags)) > 16384:
        raise ValueError("tags must be at most 64, with at most 16 KiB together")
    if not isinstance(metadata := given.get("metadata", {}), Mapping):
        raise ValueError("metadata must be a mapping, such as {'trace': 'abc'}")
    if json_text.stored_size(metadata, json_text.encode(metadata, "metadata"), 262144) > 262144:
        raise ValueError("metadata must have at most 256 KiB")


def _check_size(payload: object, encoded: str, limit: int) -> bool:
    """Checks the size of a payload. Returns true if the server, which counts more bytes, needs a higher limit."""
    size = json_text.size(encoded)
    if size > min(limit, _LARGEST_PAYLOAD):
        raise ValueError(
            f"the payload of {size} bytes is larger than the limit of {min(limit, _LARGEST_PAYLOAD)}; keep large data "
            "elsewhere and pass a reference, or raise the limit (max_payload)"
        )
    if json_text.stored_size(payload, encoded, _LARGEST_PAYLOAD) > _LARGEST_PAYLOAD:
        raise ValueError(
            f"the payload of {size} bytes is larger than 8 MiB as Postgres writes it; keep large data elsewhere and "
            "pass a reference"
        )
    return size > _DEFAULT_LARGEST_PAYLOAD // 2


def _check_times(given: dict[str, Any]) -> None:
    for name in ("delay", "timeout"):
        if isinstance(given.get(name), datetime.timedelta):
            given[name] = given[name].total_seconds()
        length = given.get(name)
        if length is not None and (isinstance(length, bool) or not isinstance(length, (int, float, str))):
            raise ValueError(f"{name} must be a number of seconds, a timedelta or a text such as '5 minutes'")
    if isinstance(at := given.get("available_at"), datetime.datetime) and at.tzinfo is None:
        raise ValueError("available_at needs a time zone, such as datetime.now(timezone.utc)")
    if "delay" in given and "available_at" in given:
        raise ValueError("delay and available_at exclude each other")
    if isinstance(given.get("delay"), (int, float)) and not 0 <= given["delay"] < 1e10:
        raise ValueError("delay must be from 0 on")
    if isinstance(given.get("timeout"), (int, float)) and not 0 < given["timeout"] < 1e10:
        raise ValueError("timeout must be more than 0")


@dataclass(frozen=True)
class Enqueued:
    """The answer to an enqueue. `existed` is true if another job, with this `id`, holds the unique key."""

    id: int
    existed: bool


class EnqueuedNow(Enqueued):
    """An answer that is there already, for callers that await it and for those that do not."""

    def __await__(self) -> Generator[None, None, Enqueued]:
        yield from ()
        return self


class AllEnqueuedNow(list[Enqueued]):
    """Answers that are there already, for callers that await them and for those that do not."""

    def __await__(self) -> Generator[None, None, list[Enqueued]]:
        yield from ()
        return self
