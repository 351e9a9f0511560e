"""The programs of the guide and of the README run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reveille import binary
from reveille.tasks import handlers

from .conftest import ROOT, Jobs, reveille, until

PAGES = [ROOT / "docs" / "clients" / "python.md", ROOT / "python" / "README.md"]
of_each_page = pytest.mark.parametrize("page", PAGES, ids=["guide", "readme"])


@of_each_page
def test_the_quickstart_runs_as_written(page: Path, url: str, jobs: Jobs, tmp_path: Path) -> None:
    text = page.read_text()
    program = re.search(r"```python\n(# app.py\n.*?)```", text, re.DOTALL)
    shell = re.search(r"```sh\n(reveille migrate.*?)```", text, re.DOTALL)
    assert program and shell
    assert len([line for line in program[1].splitlines()[1:] if line.strip()]) <= 10
    (tmp_path / "app.py").write_text(program[1])
    # As in an activated virtual environment, whose folder has both `python` and, from the wheel, `reveille`.
    folders = [str(Path(sys.executable).parent), str(Path(binary.find()).parent), os.environ["PATH"]]
    variables = os.environ | {"DATABASE_URL": url, "PATH": ":".join(folders)}
    *steps, work = shell[1].strip().splitlines()
    for step in steps:
        subprocess.run(["sh", "-c", step], env=variables, cwd=tmp_path, check=True)
    worker = subprocess.Popen(["sh", "-c", f"exec {work}"], env=variables, cwd=tmp_path)
    try:
        look = "select result from reveille.finished_jobs where kind = 'send_welcome'"
        row = until(lambda: jobs.db.execute(look).fetchone(), "the end of the job")
        assert row == ("mailed user 7",)
    finally:
        worker.terminate()
        assert worker.wait() == 0


@of_each_page
def test_the_programs_run_as_written(
    page: Path, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another test has a task of this name.
    monkeypatch.delitem(handlers, "send_welcome", raising=False)
    programs = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "app", "connection": db}
    db.execute("create table users (id bigint generated always as identity, email text)")
    for program in programs:
        if "current_job()" in program:
            compile(program, str(page), "exec")
        else:
            exec(program, names)
    user = names["sign_up"](db, "ada@example.org")
    assert db.execute("select payload from reveille.jobs order by id desc limit 1").fetchone() == ({"user_id": user},)
    assert names["jobs"] == []


def test_the_worker_explains_itself() -> None:
    said = subprocess.run([sys.executable, "-m", "reveille", "--help"], capture_output=True, text=True, check=True)
    for option in ("--queue", "--reload", "--pass-database"):
        assert option in said.stdout
    assert "--pipe" in reveille("work", "--help")
