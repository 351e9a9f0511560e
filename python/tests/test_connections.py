"""Jobs are enqueued on the connection that the application has, in its transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import reveille
from reveille import Enqueued, NewJob


@reveille.task(queue="mail", max_attempts=5, timeout=30)
def send_welcome(user_id: int, name: str = "you") -> None:
    """Is never run here."""


JOB = send_welcome.options(unique_key="seven", tags=["a"], metadata={"from": "here"})


class RolledBack(Exception):
    """Raised within a transaction, so that it is rolled back."""


def commit() -> None:
    """Is called at the end of a transaction that is committed."""


def roll_back() -> None:
    """Is called at the end of a transaction that is rolled back."""
    raise RolledBack


# Each client enqueues in a transaction, and calls `end` at the end of it.
End = Callable[[], None]


def with_psycopg(url: str, end: End) -> Enqueued:
    with psycopg.connect(url, row_factory=dict_row, cursor_factory=psycopg.RawCursor) as connection:
        enqueued = JOB.enqueue(connection, user_id=7, name="Zoë 🐘")
        end()
    return enqueued


def with_a_cursor_of_psycopg(url: str, end: End) -> Enqueued:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        enqueued = JOB.enqueue(cursor, 7, "Zoë 🐘")
        end()
    return enqueued


def in_a_pipeline_of_psycopg(url: str, end: End) -> Enqueued:
    with psycopg.connect(url) as connection, connection.pipeline():
        enqueued = JOB.enqueue(connection, 7, "Zoë 🐘")
        end()
    return enqueued


def in_a_savepoint_of_psycopg(url: str, end: End) -> Enqueued:
    with psycopg.connect(url) as connection:
        connection.execute("select 1")
        with connection.transaction():
            enqueued = JOB.enqueue(connection, 7, "Zoë 🐘")
            end()
    return enqueued


def with_psycopg_async(url: str, end: End) -> Enqueued:
    async def enqueue() -> Enqueued:
        async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
            enqueued = await JOB.enqueue(connection, 7, "Zoë 🐘")
            end()
        return enqueued

    return asyncio.run(enqueue())


def with_psycopg2(url: str, end: End) -> Enqueued:
    with contextlib.closing(psycopg2.connect(url, cursor_factory=psycopg2.extras.RealDictCursor)) as connection:
        with connection:
            enqueued = JOB.enqueue(connection, 7, "Zoë 🐘")
            end()
    return enqueued


def with_asyncpg(url: str, end: End) -> Enqueued:
    async def enqueue() -> Enqueued:
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                enqueued = await JOB.enqueue(connection, 7, "Zoë 🐘")
                end()
        finally:
            await connection.close()
        return enqueued

    return asyncio.run(enqueue())


def with_a_pool_of_asyncpg(url: str, end: End) -> Enqueued:
    async def enqueue() -> Enqueued:
        async with asyncpg.create_pool(url) as pool, pool.acquire() as connection, connection.transaction():
            enqueued = await JOB.enqueue(connection, 7, "Zoë 🐘")
            end()
        return enqueued

    return asyncio.run(enqueue())


def engine_url(url: str, driver: str = "psycopg") -> str:
    return url.replace("postgres://", "postgresql://", 1).replace("postgresql://", f"postgresql+{driver}://", 1)


def with_sqlalchemy(url: str, end: End) -> Enqueued:
    with sqlalchemy.create_engine(engine_url(url)).begin() as connection:
        enqueued = JOB.enqueue(connection, 7, "Zoë 🐘")
        end()
    return enqueued


def with_a_session(url: str, end: End) -> Enqueued:
    with Session(sqlalchemy.create_engine(engine_url(url, "psycopg2"))) as session, session.begin():
        enqueued = JOB.enqueue(session, 7, "Zoë 🐘")
        end()
    return enqueued


def with_a_scoped_session(url: str, end: End) -> Enqueued:
    session = scoped_session(sessionmaker(sqlalchemy.create_engine(engine_url(url))))
    try:
        enqueued = JOB.enqueue(session, 7, "Zoë 🐘")
        end()
        session.commit()
    finally:
        session.remove()
    return enqueued


def in_an_engine(url: str, enqueue: Callable[[AsyncEngine], Any]) -> Any:
    async def run() -> Any:
        engine = create_async_engine(engine_url(url, "asyncpg"))
        try:
            return await enqueue(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def with_sqlalchemy_async(url: str, end: End) -> Any:
    async def enqueue(engine: AsyncEngine) -> Enqueued:
        async with engine.begin() as connection:
            enqueued = await JOB.enqueue(connection, 7, "Zoë 🐘")
            end()
        return enqueued

    return in_an_engine(url, enqueue)


def with_an_async_session(url: str, end: End) -> Any:
    async def enqueue(engine: AsyncEngine) -> Enqueued:
        async with AsyncSession(engine) as session, session.begin():
            enqueued = await JOB.enqueue(session, 7, "Zoë 🐘")
            end()
        return enqueued

    return in_an_engine(url, enqueue)


CLIENTS = [
    with_psycopg,
    with_a_cursor_of_psycopg,
    in_a_pipeline_of_psycopg,
    in_a_savepoint_of_psycopg,
    with_psycopg_async,
    with_psycopg2,
    with_asyncpg,
    with_a_pool_of_asyncpg,
    with_sqlalchemy,
    with_a_session,
    with_a_scoped_session,
    with_sqlalchemy_async,
    with_an_async_session,
]


@pytest.mark.parametrize("enqueue", CLIENTS)
def test_a_job_is_enqueued_with_all_its_options(
    url: str, db: psycopg.Connection[Any], enqueue: Callable[[str, End], Enqueued]
) -> None:
    enqueued = enqueue(url, commit)
    assert not enqueued.existed
    row = db.execute(
        "select id, kind, queue, payload, max_attempts, extract(epoch from timeout)::int, unique_key, tags, metadata"
        " from reveille.jobs"
    ).fetchall()
    payload = {"user_id": 7, "name": "Zoë 🐘"}
    assert row == [(enqueued.id, "send_welcome", "mail", payload, 5, 30, "seven", ["a"], {"from": "here"})]
    assert enqueue(url, commit) == Enqueued(enqueued.id, True)


@pytest.mark.parametrize("enqueue", CLIENTS)
def test_a_job_is_rolled_back_with_the_transaction(
    url: str, db: psycopg.Connection[Any], enqueue: Callable[[str, End], Enqueued]
) -> None:
    with pytest.raises(RolledBack):
        enqueue(url, roll_back)
    assert db.execute("select count(*) from reveille.jobs").fetchone() == (0,)


def test_many_jobs_are_enqueued_by_one_statement(url: str, db: psycopg.Connection[Any]) -> None:
    enqueued = send_welcome.enqueue_many(db, [{"user_id": each} for each in range(1000)])
    rows = db.execute("select id, payload from reveille.jobs order by id").fetchall()
    assert rows == [(each.id, {"user_id": place}) for place, each in enumerate(enqueued)]
    assert send_welcome.enqueue_many(db, []) == []
    mixed = [send_welcome.job(1), NewJob.of("in_another_language", [1, 2], key="k")]
    assert len(reveille.enqueue_many(db, mixed)) == 2

    async def enqueue_many() -> list[Enqueued]:
        connection = await asyncpg.connect(url)
        enqueued = await send_welcome.enqueue_many(connection, [{"user_id": 1}, {"user_id": 2}])
        await connection.close()
        return enqueued

    assert len(asyncio.run(enqueue_many())) == 2


def test_an_object_that_is_no_connection_is_refused(url: str) -> None:
    for wrong in (None, url, sqlalchemy.create_engine(engine_url(url)), object()):
        with pytest.raises(TypeError, match="cannot enqueue on a"):
            send_welcome.enqueue(wrong, user_id=7)


def test_the_schema_is_that_of_the_environment(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVEILLE_SCHEMA", "two")
    with pytest.raises(psycopg.errors.InvalidSchemaName, match='"two"'):
        send_welcome.enqueue(db, user_id=7)
    monkeypatch.setenv("REVEILLE_SCHEMA", 'a"; drop table users')
    with pytest.raises(ValueError, match="REVEILLE_SCHEMA"):
        send_welcome.enqueue(db, user_id=7)


def test_a_job_that_cannot_be_stored_leaves_the_transaction_usable(url: str) -> None:
    with psycopg.connect(url) as connection:
        for wrong in ("\0", "\ud800", "x" * (1 << 20)):
            with pytest.raises(reveille.InvalidJob):
                send_welcome.enqueue(connection, user_id=7, name=wrong)
        # Postgres writes a space behind each comma, so it counts more bytes than Python.
        commas = [1] * ((8 << 20) // 2 - 100)
        with pytest.raises(reveille.InvalidJob, match="8 MiB as Postgres writes it"):
            reveille.enqueue(connection, NewJob.of("many", commas, max_payload=8 << 20))
        send_welcome.options(max_payload=2 << 20).enqueue(connection, user_id=7, name="x" * (1 << 20))
        reveille.enqueue(connection, NewJob.of("many", [1] * 500_000))
        assert connection.execute("select count(*) from reveille.jobs").fetchone() == (2,)
