"""Tasks: functions that a worker runs, and that are enqueued with their arguments."""

from __future__ import annotations

import datetime
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from .arguments import Arguments
from .connections import AsyncConnection
from .enqueuing import enqueue, enqueue_many
from .new_job import Enqueued, NewJob, Options
from .schedules import Schedule

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = ParamSpec("P")
R = TypeVar("R")


class Handler(Protocol):
    """What works the jobs of a kind."""

    @property
    def kind(self) -> str:
        """The kind."""

    @property
    def is_async(self) -> bool:
        """True if `call` returns a coroutine."""

    def call(self, payload: Any) -> Any:
        """Works a job. Returns the result, or a coroutine that does if `is_async`."""


# The handlers by their kinds, as far as their modules are imported.
handlers: dict[str, Handler] = {}
# The last one calls the handlers in a worker, for a framework that has something to do before and after each job.
callers: list[Callable[[Handler, Any], Any]] = [lambda handler, payload: handler.call(payload)]


@dataclass(frozen=True, eq=False)
class Task(Generic[P, R]):
    """A function that a worker runs. Calling the task calls the function, here and now."""

    function: Callable[P, R]
    kind: str
    defaults: Options = field(default_factory=lambda: Options())
    schedule: Schedule | None = None
    arguments: Arguments = field(init=False, repr=False, compare=False)
    is_async: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise TypeError(f"{self.function.__qualname__} cannot be a task: it has `yield`, so a call runs none of it")
        object.__setattr__(self, "arguments", Arguments(self.function))
        object.__setattr__(self, "is_async", inspect.iscoroutinefunction(self.function))
        for name in functools.WRAPPER_ASSIGNMENTS:
            if hasattr(self.function, name):
                object.__setattr__(self, name, getattr(self.function, name))
        object.__setattr__(self, "__wrapped__", self.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function, without a job."""
        return self.function(*args, **kwargs)

    def call(self, payload: Any) -> Any:
        """Calls the function with the arguments of a payload."""
        result: Any = self.function(**self.arguments.read(payload))  # type: ignore[call-arg]
        if not self.is_async and inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                f"{self.kind} returned a coroutine that was not awaited: make its outermost decorator `async def`, too"
            )
        return result

    def options(self, **options: Unpack[Options]) -> Task[P, R]:
        """Returns the task with other options: `send.options(delay=60).enqueue(connection, user_id=7)`."""
        return replace(self, defaults={**self.defaults, **options})

    def job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """Returns a job of this task, for `reveille.enqueue_many`. Raises `InvalidJob` if it cannot be stored."""
        return NewJob.of(self.kind, self.arguments.payload(args, kwargs), **self.defaults)

    @overload
    def enqueue(
        self, connection: AsyncConnection, /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[Enqueued]: ...
    @overload
    def enqueue(self, connection: Any, /, *args: P.args, **kwargs: P.kwargs) -> Enqueued: ...
    def enqueue(
        self, connection: Any, /, *args: P.args, **kwargs: P.kwargs
    ) -> Enqueued | Awaitable[Enqueued]:
        """Enqueues a job in the transaction of a connection. Await it on an asynchronous connection.

        Raises `InvalidJob`, before anything is sent, for a job that cannot be stored.
        """
        enqueued: Enqueued | Awaitable[Enqueued] = enqueue(connection, self.job(*args, **kwargs))
        return enqueued

    @overload
    def enqueue_many(
        self, connection: AsyncConnection, arguments: Iterable[Mapping[str, Any]]
    ) -> Awaitable[list[Enqueued]]: ...
    @overload
    def enqueue_many(self, connection: Any, arguments: Iterable[Mapping[str, Any]]) -> list[Enqueued]: ...
    def enqueue_many(
        self, connection: Any, arguments: Iterable[Mapping[str, Any]]
    ) -> list[Enqueued] | Awaitable[list[Enqueued]]:
        """Enqueues a job for each mapping of arguments, by one statement: all or none."""
        jobs = (NewJob.of(self.kind, self.arguments.payload((), each), **self.defaults) for each in arguments)
        enqueued: list[Enqueued] | Awaitable[list[Enqueued]] = enqueue_many(connection, jobs)
        return enqueued


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    kind: str | None = None,
    cron: str | None = None,
    every: float | datetime.timedelta | None = None,
    time_zone: str = "UTC",
    catch_up: Literal["skip", "one", "all"] = "one",
    arguments: Mapping[str, Any] | None = None,
    **options: Unpack[Options],
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    function: Callable[P, R] | None = None,
    /,
    *,
    kind: str | None = None,
    cron: str | None = None,
    every: float | datetime.timedelta | None = None,
    time_zone: str = "UTC",
    catch_up: Literal["skip", "one", "all"] = "one",
    arguments: Mapping[str, Any] | None = None,
    **options: Unpack[Options],
) -> Any:
    """Makes a function a task: `@reveille.task(queue="mail", max_attempts=5, timeout=30)`.

    The kind of its jobs is the function's name, or `kind`. The other options are those of `reveille.enqueue`.
    With `cron` or `every`, the task is periodic: `python -m reveille` keeps its schedule, of the name of the kind. Its
    jobs have `arguments`.

    Raises `ValueError` if another function has the same kind, and `InvalidJob` for an option that no job can have.
    """

    def made_of(function: Callable[P, R]) -> Task[P, R]:
        name = kind or function.__name__
        made = Task(function, name, options)
        if cron is None and every is None:
            NewJob.of(name, {}, **options)
        else:
            job = NewJob.of(name, made.arguments.payload((), arguments or {}), **options)
            made = replace(made, schedule=Schedule.of(cron, every, time_zone, catch_up, job))
        register(made, function)
        return made

    return made_of if function is None else made_of(function)


def register(handler: Handler, function: Callable[..., object]) -> None:
    """Makes a handler known by its kind. Raises `ValueError` if the handler of another function has the kind."""
    known = handlers.get(handler.kind)
    other = getattr(known, "function", None)
    if other is not None and "__main__" not in (other.__module__, function.__module__):
        # A module that is imported anew brings the same function again.
        if (other.__module__, other.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(
                f"the kind {handler.kind!r} is that of {other.__module__}.{other.__qualname__} already; give "
                f"{function.__module__}.{function.__qualname__} another one by @reveille.task(kind=…)"
            )
    handlers[handler.kind] = handler
