"""Tasks are worked by `python -m reveille`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .conftest import Jobs, Worker, reveille, until

Start = Callable[..., Worker]


def test_tasks_of_both_colours_return_results(start: Start, jobs: Jobs) -> None:
    ids = [jobs.enqueue(kind, '{"a": 20, "b": 22}') for kind in ("add", "add_async")]
    worker = start("""
import asyncio, reveille

@reveille.task
def add(a: int, b: int = 0) -> int:
    return a + b

@reveille.task
async def add_async(a: int, b: int = 0) -> dict:
    await asyncio.sleep(0)
    return {"sum": a + b, "of": reveille.current_job().kind}
""")
    assert [jobs.completed(id)["result"] for id in ids] == [42, {"sum": 42, "of": "add_async"}]
    assert worker.stop() == 0


def test_a_print_breaks_nothing(start: Start, jobs: Jobs) -> None:
    ids = [jobs.enqueue("chatty"), jobs.enqueue("reads"), jobs.enqueue("forks")]
    worker = start("""
import os, subprocess, sys
import reveille
print("while importing")

@reveille.task
def chatty():
    print("a print")
    os.write(1, b"a write\\n")
    sys.__stdout__.write("through the original stream\\n")
    subprocess.run(["echo", "from another program"], check=True)

@reveille.task
def reads():
    return sys.stdin.read()

@reveille.task
def forks():
    # No program that a task starts has the descriptors of the protocol.
    listed = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False).stdout
    return sum("pipe:" in line for line in listed.splitlines())
""")
    assert jobs.completed(ids[0])["result"] is None
    assert jobs.completed(ids[1])["result"] == ""
    # Standard output and error, which `subprocess.run` has made.
    assert jobs.completed(ids[2])["result"] == 2
    for text in ("while importing", "a print", "a write", "through the original stream", "from another program"):
        worker.says(text)


def test_a_task_decides_how_its_attempt_ends(start: Start, jobs: Jobs) -> None:
    kinds = ("retries", "retries_soon", "snoozes", "never", "fails", "fails_async", "exits", "unstorable")
    ids = {kind: jobs.enqueue(kind) for kind in kinds}
    start("""
import datetime, reveille
from reveille import Permanent, Retry, Snooze

@reveille.task
def retries(): raise Retry("busy", after=3600)

@reveille.task
def retries_soon():
    if reveille.current_job().attempt == 1:
        raise Retry("not yet", after=0)
    return "at last"

@reveille.task
async def snoozes(): raise Snooze(datetime.timedelta(hours=1))

@reveille.task
def never(): raise Permanent("no such user")

def deeper():
    try:
        {}["missing"]
    except KeyError:
        raise KeyError("odd\\0key\\ud800")

@reveille.task(max_attempts=1)
def fails(): deeper()

@reveille.task
async def fails_async(): deeper()

@reveille.task
def exits(): raise SystemExit(3)

@reveille.task
def unstorable(): return float("nan")
""")
    retried = jobs.live(ids["retries"], lambda job: job["failures"] == 1)
    assert retried["errors"][0]["error"] == "busy"
    assert jobs.completed(ids["retries_soon"])["result"] == "at last"
    snoozed = jobs.live(ids["snoozes"], lambda job: job["attempts"] == 1 and job["reserved_at"] is None)
    assert snoozed["failures"] == 0 and snoozed["available_at"] > snoozed["created_at"]
    assert jobs.dead(ids["never"])["errors"][0]["error"] == "no such user"
    for kind in ("fails", "fails_async"):
        error = jobs.live(ids[kind], lambda job: job["failures"])["errors"][0]["error"]
        first, *rest = error.splitlines()
        assert first == "KeyError: 'odd\\x00key\\ud800'", error
        assert "in deeper" in error and "reveille/child" not in error, error
        assert "\ncaused by: KeyError: 'missing'\n" in error, error
    assert "SystemExit: 3" in jobs.live(ids["exits"], lambda job: job["failures"])["errors"][0]["error"]
    assert jobs.completed(ids["unstorable"])["result"] is None


def test_a_payload_that_does_not_fit_is_dead_at_once(start: Start, jobs: Jobs) -> None:
    ids = [
        jobs.enqueue("typed", '{"count": "many"}'),
        jobs.enqueue("typed", "{}"),
        jobs.enqueue("typed", "[1]"),
        jobs.enqueue("typed", f'{{"count": {"9" * 5000}}}'),
    ]
    fits = jobs.enqueue("typed", '{"count": 1, "of_a_newer_version": true}')
    start("import reveille\n\n@reveille.task\ndef typed(count: int): return count\n")
    for id, why in zip(ids, ("count must be int, not 'many'", "lacks 'count'", "an object", "cannot read it")):
        assert why in jobs.dead(id)["errors"][0]["error"]
    assert jobs.completed(fits)["result"] == 1


def test_a_task_is_told_to_stop(start: Start, jobs: Jobs) -> None:
    waits, polls = jobs.enqueue("waits"), jobs.enqueue("polls")
    slow = jobs.enqueue("waits", timeout="0.5 s")
    start("""
import asyncio, time, reveille

@reveille.task
async def waits():
    reveille.current_job().progress("begun")
    await asyncio.Event().wait()

@reveille.task
def polls():
    job = reveille.current_job()
    job.progress("begun")
    while not job.cancelled():
        time.sleep(0.01)
    raise reveille.Permanent(job.stop_reason)
""")
    for id in (waits, polls):
        jobs.live(id, lambda job: job["progress"] == "begun")
        jobs.cancel(id)
    until(lambda: jobs.row("finished_jobs", waits) or jobs.row("dead_jobs", waits), "the end of the coroutine")
    until(lambda: jobs.row("finished_jobs", polls) or jobs.row("dead_jobs", polls), "the end of the thread")
    timed_out = jobs.live(slow, lambda job: job["failures"])
    assert timed_out["errors"][0]["reason"] == "timed_out"


def test_a_task_enqueues_others_as_its_children(start: Start, jobs: Jobs, url: str) -> None:
    ids = [jobs.enqueue(kind) for kind in ("by_worker", "by_worker_async", "by_connection")]
    start(
        """
import os, psycopg, reveille

@reveille.task(queue="elsewhere")
def other(number: int): ...

@reveille.task
def by_worker():
    return [each.id for each in reveille.current_job().enqueue(other.job(1), other.job(2))]

@reveille.task
async def by_worker_async():
    try:
        await reveille.current_job().aenqueue(reveille.NewJob("other", {}, {}, '{"kind": 7}'))
    except reveille.RequestFailed:
        return [each.id for each in await reveille.current_job().aenqueue(other.job(3))]

@reveille.task
def by_connection():
    with psycopg.connect(os.environ["DATABASE_URL"]) as db:
        return [other.enqueue(db, number=4).id]
""",
        "--pass-env",
        "DATABASE_URL",
    )
    for id in ids:
        for child in jobs.completed(id)["result"]:
            job = jobs.row("jobs", child)
            assert job is not None and job["parent_id"] == id


def test_a_task_completes_its_job_in_its_own_transaction(start: Start, jobs: Jobs, url: str) -> None:
    jobs.db.execute("create table charges (job bigint)")
    charges, charges_async = jobs.enqueue("charge"), jobs.enqueue("charge_async")
    fails = jobs.enqueue("charge_and_fail")
    start(
        """
import os, asyncpg, psycopg, reveille

@reveille.task
def charge():
    with psycopg.connect(os.environ["DATABASE_URL"]) as db:
        job = reveille.current_job()
        db.execute("insert into charges values (%s)", [job.id])
        job.complete_in(db)

@reveille.task(max_attempts=1)
def charge_and_fail():
    with psycopg.connect(os.environ["DATABASE_URL"]) as db:
        job = reveille.current_job()
        db.execute("insert into charges values (%s)", [job.id])
        job.complete_in(db)
        raise ValueError("after all")

@reveille.task
async def charge_async():
    db = await asyncpg.connect(os.environ["DATABASE_URL"])
    async with db.transaction():
        job = reveille.current_job()
        await db.execute("insert into charges values ($1)", job.id)
        await job.complete_in(db)
    await db.close()
""",
        "--pass-database",
    )
    jobs.completed(charges)
    jobs.completed(charges_async)
    assert "after all" in jobs.live(fails, lambda job: job["failures"])["errors"][0]["error"]
    assert jobs.db.execute("select job from charges order by job").fetchall() == [(charges,), (charges_async,)]


def test_a_shutdown_waits_for_running_tasks(start: Start, jobs: Jobs, tmp_path: Path) -> None:
    id = jobs.enqueue("waits")
    worker = start("""
import pathlib, time, reveille

@reveille.task
def waits():
    reveille.current_job().progress("begun")
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return "whole"
""")
    jobs.live(id, lambda job: job["progress"] == "begun")
    worker.process.terminate()
    until(lambda: jobs.db.execute("select from reveille.workers where stopping").fetchall(), "the worker's farewell")
    (tmp_path / "go").touch()
    assert jobs.completed(id)["result"] == "whole"
    assert worker.stop() == 0


def test_a_periodic_task_runs_by_its_schedule(start: Start, jobs: Jobs) -> None:
    start("""
import reveille

@reveille.task(every=1, arguments={"pages": 3}, queue="default", tags=["beat"])
def pulse(pages: int): return pages

@reveille.task(cron="0 3 * * *", time_zone="Europe/Berlin")
def nightly(): ...
""")
    row = until(
        lambda: jobs.db.execute("select result, tags from reveille.finished_jobs where kind = 'pulse'").fetchone(),
        "a tick",
    )
    assert row == (3, ["beat"])
    schedules = jobs.db.execute("select name, cron, time_zone from reveille.schedules order by name").fetchall()
    assert schedules == [("nightly", "0 3 * * *", "Europe/Berlin"), ("pulse", None, "UTC")]


def test_no_job_is_lost_when_a_child_dies(start: Start, jobs: Jobs) -> None:
    dies = jobs.enqueue("dies")
    ids = [jobs.enqueue("is_quick") for _ in range(20)]
    start("""
import os, reveille

@reveille.task
def dies():
    if reveille.current_job().attempt == 1:
        os._exit(7)

@reveille.task
async def is_quick(): ...
""")
    for id in [dies, *ids]:
        jobs.completed(id)


def test_a_module_that_cannot_be_imported_is_an_error(start: Start) -> None:
    worker = start("import os\nos.environ['DATABASE_URL']\n", "--no-schedules")
    assert worker.process.wait(60) == 2
    log = worker.log.read_text()
    assert "KeyError: 'DATABASE_URL'" in log and "--pass-env DATABASE_URL" in log, log
    worker = start("import os\nraise OSError('no disk')\n")
    assert worker.process.wait(60) == 2
    assert "no disk" in worker.log.read_text()
    worker = start(
        "from __future__ import annotations\nimport reveille\n\n@reveille.task\ndef takes(when: Unknown): ...\n"
    )
    assert worker.process.wait(60) == 2
    assert "the types of the arguments of takes cannot be found" in worker.log.read_text()


def test_a_file_in_place_of_a_module_is_an_error() -> None:
    said = subprocess.run([sys.executable, "-m", "reveille", "app/tasks.py"], capture_output=True, text=True)
    assert said.returncode == 2 and "write app.tasks for the file app/tasks.py" in said.stderr, said.stderr


def test_the_worker_starts_anew_when_a_source_file_changes(start: Start, jobs: Jobs, tmp_path: Path) -> None:
    source = "import reveille\n\n@reveille.task\ndef version(): return {}\n"
    first = jobs.enqueue("version")
    worker = start(source.format(1), "--reload")
    assert jobs.completed(first)["result"] == 1
    (tmp_path / "app.py").write_text(source.format(2))
    worker.says("starts anew")
    until(lambda: jobs.completed(jobs.enqueue("version"))["result"] == 2, "a job of the new source")
    assert worker.stop() == 0


def test_the_child_keeps_the_protocol(tmp_path: Path) -> None:
    for colour in ("", "async "):
        (tmp_path / "app.py").write_text(f"import reveille\n\n@reveille.task\n{colour}def check(**rest): ...\n")
        child = f"cd {shlex.quote(str(tmp_path))} && exec {shlex.quote(sys.executable)} -m reveille.child app"
        said = reveille("pipe-check", child, PYTHONPATH=os.environ.get("PYTHONPATH", ""))
        assert "FAILED" not in said
