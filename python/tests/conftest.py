"""A throw-away server, a database for each test, and workers as users start them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from reveille import binary

ROOT = Path(__file__).parent.parent.parent
# The time that anything may take on a machine that is busy.
DEADLINE = 60.0
T = TypeVar("T")


def until(look: Callable[[], T | None], what: str) -> T:
    """Waits until `look` returns something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE:g} s: {what}")


def reveille(*arguments: str, **variables: str) -> str:
    """Runs the command, and returns its output."""
    done = subprocess.run(
        [binary.find(), *arguments], env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, f"reveille {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def environment() -> None:
    """Keeps the tests away from any other server."""
    for name in ("DATABASE_URL", "REVEILLE_LISTEN_URL", "REVEILLE_SCHEMA", "RUST_LOG"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def server(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Starts a throw-away server, and yields its address."""
    said = tmp_path_factory.mktemp("server") / "said"
    # A file, since the server keeps what it writes to open.
    with said.open("w") as file:
        demo = subprocess.run([binary.find(), "demo", "--json", "--keep"], stdout=file, stderr=file)
    assert demo.returncode == 0, said.read_text()
    url = re.search(r"^the server goes on: (.*)$", said.read_text(), re.MULTILINE)
    stop = re.search(r"^stop it with: (.*)$", said.read_text(), re.MULTILINE)
    assert url and stop, said.read_text()
    try:
        yield url[1]
    finally:
        subprocess.run(["sh", "-c", stop[1]], check=True)


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """Makes a database with Reveille's tables, of which those of the tests are copies."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("create database reveille_template")
    reveille("migrate", DATABASE_URL=_of(server, "reveille_template"))
    return "reveille_template"


@pytest.fixture
def url(server: str, template: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Makes a database, and yields its address."""
    name = re.sub(r"\W", "_", request.node.name.lower())[:50] + f"_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template {template}')
        yield _of(server, name)
        admin.execute(f'drop database "{name}" with (force)')


def _of(server: str, database: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))


class Worker:
    """A worker that a test has started by `python -m reveille`."""

    def __init__(self, url: str, folder: Path, arguments: list[str], variables: dict[str, str]) -> None:
        self.log = folder / "worker.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "reveille", *arguments],
                cwd=folder,
                env=os.environ | {"DATABASE_URL": url} | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def says(self, text: str) -> None:
        """Waits until the log has a text."""
        until(lambda: text in self.log.read_text(), f"{text!r} in:\n{self.log.read_text()}")

    def stop(self) -> int:
        """Stops the worker as a supervisor does, and returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers for the tasks of a text, in the module `app`."""
    workers: list[Worker] = []

    def start(source: str, *arguments: str, **variables: str) -> Worker:
        (tmp_path / "app.py").write_text(source)
        chosen = list(arguments) or ["--queue", "default=4"]
        workers.append(Worker(url, tmp_path, ["app", *chosen], variables))
        return workers[-1]

    yield start
    for worker in workers:
        try:
            worker.stop()
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        print(worker.log.read_text())


class Jobs:
    """The jobs of a database, as the tables have them."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self.db = db

    def enqueue(self, kind: str, payload: str = "{}", **options: str) -> int:
        """Enqueues a job by SQL, as a program in another language does."""
        names = "".join(f", {name} => %s" for name in options)
        row = self.db.execute(
            f"select id from reveille.enqueue(%s, %s::jsonb{names})", [kind, payload, *options.values()]
        ).fetchone()
        assert row is not None
        return int(row[0])

    def cancel(self, id: int) -> None:
        """Cancels a job."""
        self.db.execute("select reveille.cancel(%s)", [id])

    def row(self, table: str, id: int) -> dict[str, Any] | None:
        """Returns the row of a job in a table, without the payload, which Python may be unable to read."""
        select = f"select to_jsonb(job) - 'payload' from reveille.{table} as job where id = %s"
        row = self.db.execute(select, [id]).fetchone()
        return None if row is None else dict(row[0])

    def completed(self, id: int) -> dict[str, Any]:
        """Waits until a job is completed."""
        job = until(lambda: self.row("finished_jobs", id) or self.row("dead_jobs", id), f"the end of the job {id}")
        assert job.get("outcome") == "completed", job
        return job

    def dead(self, id: int) -> dict[str, Any]:
        """Waits until a job is dead."""
        return until(lambda: self.row("dead_jobs", id), f"the death of the job {id}")

    def live(self, id: int, is_so: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Waits until a live job is as `is_so` says."""

        def look() -> dict[str, Any] | None:
            job = self.row("jobs", id)
            return job if job is not None and is_so(job) else None

        return until(look, f"the job {id}, live and as expected; now {self.row('jobs', id)}")


@pytest.fixture
def db(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that commits each statement."""
    with psycopg.connect(url, autocommit=True) as db:
        yield db


@pytest.fixture
def jobs(db: psycopg.Connection[Any]) -> Jobs:
    """The jobs of the database."""
    return Jobs(db)
