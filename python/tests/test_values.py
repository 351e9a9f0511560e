"""Arguments become JSON and come back as the types that the function names; wrong values are refused before."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import json
import math
import typing
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)

import pytest

import reveille
from reveille import json_text
from reveille.arguments import Arguments, DoesNotFit, read

if TYPE_CHECKING:
    OnlyForTypes = int
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Address:
    street: str
    since: date
    tags: list[str]


class Place(NamedTuple):
    row: int
    since: date


class Email(str):
    """A text with a type of its own."""


T = TypeVar("T")


@dataclass
class Page(Generic[T]):
    items: list[str]


class Box(TypedDict, total=False):
    width: int
    made: date


class Model:
    """Looks as a model of Pydantic does."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and other.number == self.number

    def model_dump(self, mode: str) -> dict[str, int]:
        return {"number": self.number}

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        return cls(value["number"])


@pytest.mark.parametrize(
    "wanted, value",
    [
        (int, 2**70),
        (float, 0.1),
        (str, "Zoë 🐘 \\u0000 \n"),
        (bool, True),
        (type(None), None),
        (Any, {"a": [1, None]}),
        (UserId, UserId(7)),
        (Annotated[int, "positive"], 3),
        (Optional[int], None),
        (Union[int, str], "x"),
        (Literal["a", 1], 1),
        (list[int], [1, 2]),
        (typing.Sequence[str], ["a"]),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2, 3)),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (dict[str, int], {"a": 1}),
        (dict[int, date], {7: date(2026, 11, 30)}),
        (datetime, datetime(2026, 11, 30, 12, tzinfo=timezone.utc)),
        (date, date(2026, 11, 30)),
        (time, time(12, 30)),
        (timedelta, timedelta(minutes=1.5)),
        (uuid.UUID, uuid.UUID(int=7)),
        (Decimal, Decimal("19.990")),
        (Colour, Colour.RED),
        (Address, Address("Main", date(2026, 1, 2), ["home"])),
        (list[Address], [Address("Main", date(2026, 1, 2), [])]),
        (Box, {"width": 1, "made": date(2026, 1, 2)}),
        (Place, Place(3, date(2026, 1, 2))),
        (Email, Email("ada@example.org")),
        (OrderedDict, OrderedDict(a=1)),
        (Sequence, ["a"]),
        (Page[str], Page(["a"])),
        (Model, Model(5)),
    ],
)
def test_a_value_comes_back_as_it_was(wanted: Any, value: Any) -> None:
    back = read(wanted, json.loads(json_text.encode(value, "the payload")), "it")
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize(
    "wanted, value",
    [
        (int, "7"),
        (int, True),
        (int, 1.5),
        (str, 7),
        (bool, 1),
        (list[int], [1, "2"]),
        (tuple[int, str], [1]),
        (dict[str, int], []),
        (date, "tomorrow"),
        (uuid.UUID, 7),
        (Decimal, "much"),
        (Colour, "blue"),
        (Address, {"street": "Main"}),
        (Literal["a"], "b"),
        (Optional[int], "x"),
        (Model, {}),
        (Place, [1]),
        (Email, 7),
        (bytes, "text"),
        (Arguments, {}),
        (collections.abc.Callable, "text"),
    ],
)
def test_a_value_of_another_type_is_refused(wanted: Any, value: Any) -> None:
    with pytest.raises(DoesNotFit, match="it"):
        read(wanted, value, "it")


def test_what_postgres_cannot_store_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (math.nan, math.inf, "\0", {"\0": 1}, "\\\0", "\ud800", {"\udfff": 1}, object(), b"bytes", deep):
        with pytest.raises(ValueError, match="the payload"):
            json_text.encode(value, "the payload")
    assert json_text.encode("\\u0000", "the payload") == '"\\\\u0000"'


def test_options_that_no_job_can_have_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"queue": ""},
        {"queue": "x" * 129},
        {"key": "x" * 513},
        {"delay": -1},
        {"timeout": 0},
        {"available_at": datetime(2026, 1, 1)},
        {"delay": 1, "available_at": datetime(2026, 1, 1, tzinfo=timezone.utc)},
        {"max_attempts": 0},
        {"tags": "abc"},
        {"tags": ["x"] * 65},
        {"metadata": {"a": "x" * 262144}},
        {"metadata": {"a": [1] * 120000}},
        {"metadata": "text"},
        {"tags": [7]},
        {"max_attempts": "5"},
        {"parent_id": 1.5},
        {"priority": "hi"},
        {"priority": True},
        {"unique_mode": "drop"},
        {"delay": []},
        {"timeout": True},
    ]
    for options in wrong:
        with pytest.raises(reveille.InvalidJob, match="kind"):
            reveille.NewJob.of("kind", {}, **options)


def test_a_call_that_python_would_refuse_is_refused() -> None:
    def function(a: int, *, b: int = 1, **rest: Any) -> None: ...

    arguments = Arguments(function)
    assert arguments.payload((1,), {"b": 2, "c": 3}) == {"a": 1, "b": 2, "c": 3}
    assert arguments.read({"a": 1, "c": 3}) == {"a": 1, "c": 3}
    for args, kwargs in ((), {}), ((1, 2), {}), ((1,), {"a": 2}):
        with pytest.raises(TypeError):
            arguments.payload(args, kwargs)


def test_a_function_that_no_payload_can_call_is_no_task() -> None:
    def takes_places(a: int, /) -> None: ...
    def takes_all(*many: int) -> None: ...

    def yields() -> Iterator[int]:
        yield 1

    async def yields_async() -> AsyncIterator[int]:
        yield 1

    for function in (takes_places, takes_all, yields, yields_async):
        with pytest.raises(TypeError, match="cannot be a task"):
            reveille.task(function)


def test_two_functions_cannot_have_one_kind() -> None:
    @reveille.task(kind="taken")
    def one() -> None: ...

    with pytest.raises(ValueError, match="'taken' is that of"):

        @reveille.task(kind="taken")
        def two() -> None: ...


def test_a_misspelt_option_is_refused_where_the_task_is_defined() -> None:
    options: dict[str, Any] = {"que": "mail"}
    with pytest.raises(reveille.InvalidJob, match="there is no option 'que'; perhaps you mean 'queue'"):

        @reveille.task(**options)
        def sends() -> None: ...


def test_a_periodic_task_is_checked_where_it_is_defined() -> None:
    wrong: list[dict[str, Any]] = [{"every": 0}, {"every": 5, "cron": "@daily"}, {"every": 5, "unique_key": "one"}]
    for options in wrong:
        with pytest.raises(ValueError):

            @reveille.task(**options)
            def beats() -> None: ...


def test_types_that_only_a_type_checker_knows_are_named() -> None:
    def takes(value: OnlyForTypes) -> None: ...

    with pytest.raises(TypeError, match="takes cannot be found: name 'OnlyForTypes' is not defined"):
        Arguments(takes).types()


def test_a_coroutine_that_is_not_awaited_is_an_error() -> None:
    def plain(function: Any) -> Any:
        return lambda **arguments: function(**arguments)

    @reveille.task(kind="wrapped")
    @plain
    async def wrapped() -> None: ...

    with pytest.raises(TypeError, match="wrapped returned a coroutine"):
        wrapped.call({})


def test_a_task_looks_like_its_function() -> None:
    @reveille.task(kind="alike")
    def alike(number: int) -> None:
        """Does nothing."""

    assert inspect.signature(alike) == inspect.signature(alike.function)
    assert (alike.__doc__, alike.__name__, alike.__module__) == ("Does nothing.", "alike", __name__)  # type: ignore
