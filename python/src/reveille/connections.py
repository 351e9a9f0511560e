"""Statements on the connection that the application has, in its transaction, with whichever client it uses."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

Row = Sequence[Any]
Result = TypeVar("Result")


class AsyncConnection(Protocol):
    """A connection whose statements are awaited: of psycopg, of asyncpg, or of SQLAlchemy."""

    @property
    def execute(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Runs a statement."""


def schema() -> str:
    """Returns the schema of Reveille's tables: the environment variable `REVEILLE_SCHEMA`, or `reveille`.

    Raises `ValueError` for a name that would need quotes.
    """
    name = os.environ.get("REVEILLE_SCHEMA") or "reveille"
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise ValueError(f"REVEILLE_SCHEMA must be a name of small letters, digits and _, not {name!r}")
    return name


def fetch(
    connection: Any, statement: str, parameters: Sequence[str], then: Callable[[list[Row]], Result]
) -> Result | Awaitable[Result]:
    """Runs a statement and passes its rows to `then`: at once, or when awaited if the connection is asynchronous.

    Each parameter is a text. The statement has `{0}`, `{1}` … once each, in their order, as texts. It has `{schema}`
    for Reveille's schema.

    Raises `TypeError` for an object that is no connection of a known client.
    """
    run = _client_of(connection)
    rows = run(connection, statement, parameters)
    if inspect.isawaitable(rows):

        async def awaited() -> Result:
            return then(await rows)

        return awaited()
    return then(rows)


def _client_of(connection: Any) -> Callable[[Any, str, Sequence[str]], Any]:
    """Returns the function that runs a statement with the client of this connection."""
    for parent in type(connection).__mro__:
        package = parent.__module__.partition(".")[0]
        if package in _CLIENTS:
            return _CLIENTS[package]
    if callable(getattr(connection, "cursor", None)):
        return _db_api
    raise TypeError(
        f"cannot enqueue on a {type(connection).__module__}.{type(connection).__qualname__}: pass a connection of "
        "psycopg, psycopg2, asyncpg, SQLAlchemy (or its session) or Django"
    )


def _psycopg(connection: Any, statement: str, parameters: Sequence[str]) -> Any:
    psycopg = sys.modules["psycopg"]
    # The application may have chosen other rows and cursors for its own statements.
    connection = getattr(connection, "connection", connection)
    statement = _with_places(statement, ["%s"] * len(parameters))
    if isinstance(connection, psycopg.AsyncConnection):

        async def awaited() -> list[Row]:
            async with psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
                await cursor.execute(statement, parameters)
                rows: list[Row] = await cursor.fetchall()
                return rows

        return awaited()
    if not isinstance(connection, psycopg.Connection):
        raise TypeError(f"cannot enqueue on a {type(connection).__qualname__} of psycopg: pass a connection")
    with psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def _psycopg2(connection: Any, statement: str, parameters: Sequence[str]) -> list[Row]:
    connection = getattr(connection, "connection", connection)
    with sys.modules["psycopg2.extensions"].cursor(connection) as cursor:
        cursor.execute(_with_places(statement, ["%s"] * len(parameters)), list(parameters))
        rows: list[Row] = cursor.fetchall()
        return rows


def _asyncpg(connection: Any, statement: str, parameters: Sequence[str]) -> Any:
    places = [f"${place + 1}" for place in range(len(parameters))]
    return connection.fetch(_with_places(statement, places), *parameters)


def _sqlalchemy(connection: Any, statement: str, parameters: Sequence[str]) -> Any:
    names = [f"parameter_{place}" for place in range(len(parameters))]
    text = sys.modules["sqlalchemy"].text(_with_places(statement, [f":{name}" for name in names]))
    given = dict(zip(names, parameters, strict=True))
    if not callable(getattr(connection, "execute", None)):
        raise TypeError(f"cannot enqueue on a {type(connection).__qualname__}: pass a connection or a session of it")
    # A session lends the connection of its transaction.
    is_session = hasattr(type(connection), "flush")
    if any(parent.__module__.startswith("sqlalchemy.ext.asyncio") for parent in type(connection).__mro__):

        async def awaited() -> list[Row]:
            on = await connection.connection() if is_session else connection
            return list((await on.execute(text, given)).all())

        return awaited()
    on = connection.connection() if is_session else connection
    return list(on.execute(text, given).all())


def _db_api(connection: Any, statement: str, parameters: Sequence[str]) -> list[Row]:
    if not callable(getattr(connection, "cursor", None)):
        raise TypeError(f"cannot enqueue on a {type(connection).__qualname__}: pass a connection")
    with connection.cursor() as cursor:
        cursor.execute(_with_places(statement, ["%s"] * len(parameters)), list(parameters))
        return list(cursor.fetchall())


def _with_places(statement: str, places: Sequence[str]) -> str:
    # Without the cast, a client or the server could take a parameter for another type.
    return statement.format(*(f"cast({place} as text)" for place in places), schema=schema())


_CLIENTS: dict[str, Callable[[Any, str, Sequence[str]], Any]] = {
    "psycopg": _psycopg,
    "psycopg2": _psycopg2,
    "asyncpg": _asyncpg,
    "sqlalchemy": _sqlalchemy,
    "django": _db_api,
}
