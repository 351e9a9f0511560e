"""The test mode: see what was enqueued, or run it at once, without a database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import reveille
import reveille.testing

ran: list[Any] = []


@reveille.task(queue="mail")
def welcome(user_id: int) -> str:
    ran.append(("welcome", user_id, reveille.current_job().attempt))
    remind.enqueue(None, user_id=user_id)
    return f"welcome {user_id}"


@reveille.task
async def remind(user_id: int) -> None:
    await asyncio.sleep(0)
    reveille.current_job().progress({"half": True})
    ran.append(("remind", user_id))


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def test_what_was_enqueued_can_be_seen_and_worked() -> None:
    with reveille.testing.captured() as jobs:
        assert not welcome.enqueue(None, user_id=7).existed
        unique = welcome.options(unique_key="k")
        assert not unique.enqueue(None, user_id=8).existed
        assert unique.enqueue(None, user_id=9).existed
        welcome.enqueue_many(None, [{"user_id": 10}])
    assert [job.payload for job in jobs.of(welcome)] == [{"user_id": 7}, {"user_id": 8}, {"user_id": 10}]
    assert jobs[0].options["queue"] == "mail" and not ran
    assert jobs.work()[0] == "welcome 7"
    assert ("remind", 10) in ran and not jobs


def test_jobs_run_inline() -> None:
    with reveille.testing.inline():
        welcome.enqueue(None, user_id=7)
    assert ran == [("welcome", 7, 1), ("remind", 7)]


def test_jobs_run_inline_in_an_event_loop() -> None:
    async def sign_up() -> None:
        connection: Any = None
        assert not (await remind.enqueue(connection, user_id=3)).existed
        assert len(await reveille.enqueue_many(connection, [remind.job(4), remind.job(5)])) == 2

    with reveille.testing.inline():
        asyncio.run(sign_up())
    assert ran == [("remind", 3), ("remind", 4), ("remind", 5)]


def test_one_job_is_worked_with_facts_of_its_attempt() -> None:
    with reveille.testing.captured():
        assert reveille.testing.work(welcome.job(1), attempt=3) == "welcome 1"
    assert ran == [("welcome", 1, 3)]
    with pytest.raises(LookupError):
        reveille.testing.work(reveille.NewJob.of("unknown", {}))
    with pytest.raises(LookupError):
        reveille.current_job()


def test_a_task_is_a_function_still() -> None:
    with reveille.testing.captured() as jobs:
        with pytest.raises(LookupError):
            welcome(user_id=7)
    assert not jobs and asyncio.iscoroutine(coroutine := remind(1))
    coroutine.close()
