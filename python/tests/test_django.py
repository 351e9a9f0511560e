"""The backend of `django.tasks`, with a small project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .conftest import Jobs, Worker

django = pytest.importorskip("django")
# Django 6 has `django.tasks`, and needs Python 3.12.
with_tasks = pytest.mark.skipif(django.VERSION < (6,), reason="this Django has no tasks")
PYTHON = Path(__file__).parent.parent


PROJECT = {"DJANGO_SETTINGS_MODULE": "tests.shop.settings", "PYTHONPATH": str(PYTHON)}
PLAIN = """
import reveille
from asgiref.sync import sync_to_async
from django.db import connection

@reveille.task
def process() -> int:
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return cursor.fetchone()[0]

@reveille.task
async def process_async() -> int:
    return await sync_to_async(process)()
"""


@pytest.fixture
def worker(url: str, tmp_path: Path) -> Iterator[Worker]:
    """A worker of the project, which also works the plain tasks of the module `plain`."""
    (tmp_path / "plain.py").write_text(PLAIN)
    arguments = ["--django", "plain", "--queue", "default=1", "--queue", "mail=2"]
    worker = Worker(url, tmp_path, arguments, PROJECT | {"SHOP_DATABASE_URL": url})
    yield worker
    worker.stop()
    print(worker.log.read_text())


def in_the_project(url: str, program: str, variables: dict[str, str] | None = None) -> str:
    """Runs a program in the project, and returns its output."""
    project = {"DJANGO_SETTINGS_MODULE": "tests.shop.settings", "SHOP_DATABASE_URL": url, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", f"import django\ndjango.setup()\n{program}"],
        env=project | (variables or {}),
        cwd=PYTHON,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_job_is_enqueued_on_djangos_connection_in_atomic(url: str, db: psycopg.Connection[Any]) -> None:
    in_the_project(
        url,
        """
import asyncio
import reveille
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction

@reveille.task
def greet(name: str): ...

with transaction.atomic():
    greet.enqueue(connection, name="Ada")
    greet.enqueue_many(connections["default"], [{"name": "Grace"}])
try:
    with transaction.atomic():
        greet.enqueue(connection, name="nobody")
        raise KeyError
except KeyError:
    pass
asyncio.run(sync_to_async(greet.enqueue)(connection, name="Alan"))
""",
    )
    names = db.execute("select payload ->> 'name' from reveille.jobs order by id").fetchall()
    assert names == [("Ada",), ("Grace",), ("Alan",)]


def test_a_plain_task_gets_a_connection_that_works(jobs: Jobs, worker: Worker) -> None:
    for kind in ("process", "process_async"):
        first = jobs.completed(jobs.enqueue(kind))["result"]
        jobs.db.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid = %s", [first])
        assert jobs.completed(jobs.enqueue(kind))["attempts"] == 1


@with_tasks
def test_settings_that_fall_back_to_another_database_are_refused(url: str, tmp_path: Path) -> None:
    worker = Worker(url, tmp_path, ["--django"], PROJECT)
    assert worker.process.wait(60) == 2
    assert "Settings that read DATABASE_URL need --pass-database" in worker.log.read_text()


@with_tasks
def test_a_task_of_django_is_enqueued_in_atomic_and_worked(
    url: str, db: psycopg.Connection[Any], worker: Worker
) -> None:
    said = in_the_project(
        url,
        """
import asyncio, datetime, time
from django.core.management import call_command
from django.db import transaction
from django.tasks import task_backends
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.utils import timezone
from reveille.django import ReveilleBackend
from tests.shop.tasks import count, fails, welcome

call_command("check")
misspelt = ReveilleBackend("other", {"OPTIONS": {"max_attemps": 1}}).check()
assert [error.id for error in misspelt] == ["reveille.E002"], misspelt
try:
    with transaction.atomic():
        lost = welcome.enqueue("nobody")
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    greeted = welcome.enqueue("Ada", times=2)
    assert greeted.status == "READY" and not greeted.is_finished
counted = asyncio.run(count.aenqueue(1, 2, 3))
failed = fails.enqueue()
later = welcome.using(run_after=timezone.now() + datetime.timedelta(hours=1)).enqueue("Grace")

for result in (greeted, counted, failed):
    while not result.is_finished:
        time.sleep(0.02)
        result.refresh()
assert greeted.return_value == "welcome, Ada welcome, Ada", greeted
assert greeted.enqueued_at <= greeted.started_at <= greeted.finished_at and len(greeted.worker_ids) == 1
assert counted.return_value == {"sum": 6, "attempt": 1}, counted
assert failed.status == "FAILED" and failed.errors[0].exception_class is ValueError, failed
assert "of no use" in failed.errors[0].traceback and failed.attempts == 1
assert asyncio.run(welcome.aget_result(later.id)).status == "READY"
assert welcome.get_result(greeted.id).args == ["Ada"]
for unknown in (lost.id, "no number", "-1"):
    try:
        task_backends["default"].get_result(unknown)
        raise AssertionError(unknown)
    except TaskResultDoesNotExist:
        pass
try:
    welcome.using(queue_name="unknown")
    raise AssertionError
except InvalidTask:
    pass
print("whole")
""",
    )
    assert said.endswith("whole\n"), said
    rows = db.execute("select kind, queue, priority from reveille.jobs").fetchall()
    assert rows == [("tests.shop.tasks.welcome", "mail", 1)]
