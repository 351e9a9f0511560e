"""JSON that Postgres can store: encoded from values of Python, and checked before it is sent."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import re
import uuid
from collections.abc import Mapping, Set
from typing import Any

# An escaped NUL, after an even number of backslashes.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def encode(value: object, what: str) -> str:
    """Returns a value as JSON on one line.

    Besides the types of JSON, it takes dates and times, `timedelta` (as seconds), `UUID`, `Decimal`, enumerations,
    sets, dataclasses, and models of Pydantic.

    Raises `ValueError`, which begins with `what`, for a value that has no JSON or that Postgres cannot store: NaN and
    infinities, NUL characters, lone surrogates.
    """
    try:
        text = _dumps(value, (",", ":"))
    except Exception as error:
        # A method of the value may fail in any way.
        raise ValueError(f"{what} cannot be JSON: {error}") from error
    if "\\u0000" in text and _NUL.search(text):
        raise ValueError(f"{what} has a NUL character, which Postgres cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} has a lone surrogate ({error.object[error.start]!r}), which is no text") from error
    return text


def size(text: str) -> int:
    """Returns the number of bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def stored_size(value: object, encoded: str, limit: int) -> int:
    """Returns the number of bytes that Postgres counts: it writes a space behind each comma and colon.

    `encoded` is the value as `encode` returns it. The spaces of a value below half the limit are not counted.
    """
    least = size(encoded)
    # The spaces at most double a text.
    return size(_dumps(value, (", ", ": "))) if least > limit // 2 else least


def _dumps(value: object, separators: tuple[str, str]) -> str:
    return json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False, separators=separators)


def _plain(value: Any) -> object:
    """Returns a value of which JSON has no type as one of which it has."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        return dump(mode="json")
    raise TypeError(f"a {type(value).__qualname__} is not of a type that JSON has")
