"""Encrypted jobs: enqueued by Python, worked by `python -m reveille`, and read by Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

import reveille
import reveille.testing
from reveille import encryption
from reveille.encryption import CannotDecrypt, Field, Keys, MissingKeys

from .conftest import ROOT, Jobs, Worker, until
from .conftest import reveille as command
from .test_django import PROJECT, in_the_project, with_tasks

Start = Callable[..., Worker]
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OLD = f"old:{KEY}"
NEW = "new:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
NONCE = bytes(range(24))
NAME = "REVEILLE_ENCRYPTION_KEYS"
STORED = """
select line from (
    select jobs::text from reveille.jobs
    union all select dead_jobs::text from reveille.dead_jobs
    union all select finished_jobs::text from reveille.finished_jobs
    union all select schedules::text from reveille.schedules
) as stored (line) where line like '%secret%'
"""


@reveille.task(encrypted=True)
def confide(text: str) -> str:
    return f"read: {text}"


CONFIDE = """
import reveille

@reveille.task(encrypted=True)
def confide(text: str) -> str:
    return f"read: {text}"
"""


@pytest.fixture
def with_old(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Gives this program the old key."""
    monkeypatch.setenv(NAME, OLD)
    return Keys.parse(OLD)


def payload_of(db: psycopg.Connection[Any], table: str, id: int) -> Any:
    row = db.execute(f"select payload from reveille.{table} where id = %s", [id]).fetchone()
    assert row is not None
    return row[0]


def test_the_vectors_of_the_guide_are_those_of_python() -> None:
    # A test of the Rust middleware reads the same page.
    page = (ROOT / "docs" / "reference" / "encryption.md").read_text()
    found = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert found
    keys, vector = Keys.parse(f"2026-11:{KEY}"), json.loads(found[1])
    assert keys._seal("send_welcome", "payload", b'{"user_id":7}', NONCE) == vector
    assert keys.decrypt("send_welcome", "payload", vector) == {"user_id": 7}
    assert keys.decrypt("send_welcome", "payload", found[1]) == {"user_id": 7}
    error = keys._seal("grüße", "error", "no luck: 7 €".encode(), NONCE)
    assert error["ciphertext"] in page
    assert keys.decrypt("grüße", "error", json.dumps(error)) == "no luck: 7 €"
    for kind, field in (("send_welcome", "payload"), ("grüße", "error")):
        assert encryption._associated_data(kind, cast(Field, field)).hex() in page


def test_the_program_of_the_guide_runs_as_written(db: psycopg.Connection[Any], with_old: Keys) -> None:
    page = (ROOT / "docs" / "features" / "encryption.md").read_text()
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found
    exec(found[1], {"__name__": "app", "connection": db})


def test_a_value_opens_only_as_it_was_sealed() -> None:
    keys = Keys.parse(f"{NEW}\n# an older one\n {OLD}")
    sealed = keys.encrypt("confide", "result", {"a": [1, "é"]})
    assert sealed["key"] == "new" and "é" not in str(sealed)
    assert keys.encrypt("confide", "result", 1)["nonce"] != keys.encrypt("confide", "result", 1)["nonce"]
    assert keys.decrypt("confide", "result", sealed) == {"a": [1, "é"]}
    fields: list[tuple[str, Field]] = [("other", "result"), ("confide", "payload"), ("confide", "progress")]
    for kind, field in fields:
        with pytest.raises(CannotDecrypt, match="was changed, or comes from another kind or field"):
            keys.decrypt(kind, field, sealed)
    changes: list[dict[str, Any]] = [
        {"key": "old"}, {"nonce": "AAAA"}, {"nonce": 7}, {"ciphertext": sealed["ciphertext"][:-4]}, {"ciphertext": ""},
        {"ciphertext": sealed["ciphertext"].swapcase()}, {"ciphertext": "é"}, {"ciphertext": None},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(CannotDecrypt, match="was changed"):
            keys.decrypt("confide", "result", sealed | change)
    for change, why in (
        ({"key": "gone"}, "the key 'gone', which this program lacks"),
        ({"key": []}, "lacks"),
        ({"reveille_encrypted": 2}, "does not know: version 2"),
        ({"algorithm": "AES"}, "algorithm 'AES'"),
    ):
        with pytest.raises(CannotDecrypt, match=re.escape(why)):
            keys.decrypt("confide", "result", sealed | change)
    for plain in ({"a": 1}, {"reveille_encrypted": True}, "text", "7", None, [1]):
        with pytest.raises(CannotDecrypt, match="the result is not encrypted"):
            keys.decrypt("confide", "result", plain)
    error = keys.encrypt("confide", "error", "no luck")
    assert error.splitlines()[0].endswith('"key":"new",') and keys.decrypt("confide", "error", error) == "no luck"
    assert keys.decrypt("confide", "error", "plain: the worker was killed") == "plain: the worker was killed"
    with pytest.raises(ValueError, match="the payload cannot be JSON"):
        keys.encrypt("confide", "payload", float("nan"))
    with pytest.raises(ValueError, match="the field must be one of"):
        keys.encrypt("confide", cast(Field, "results"), 1)


def test_a_key_that_cannot_be_read_is_refused_and_not_shown() -> None:
    assert repr(Keys.parse(f"{NEW} {OLD}")) == "Keys(new, old)"
    digits = "0a1b2c3d" * 8
    for text, why in (
        ("", "at least one key"),
        (KEY, "written as id:key"),
        (digits, "written as id:key"),
        (f"{digits}:new", "32 bytes in base64"),
        (f"{KEY}:{KEY}", "letters, digits"),
        (f":{KEY}", "letters, digits"),
        (f"a/b:{KEY}", "letters, digits"),
        (f"{'a' * 65}:{KEY}", "letters, digits"),
        (f"a:{KEY[1:]}", "32 bytes in base64"),
        (f"a:{KEY.replace('A', '?')}", "32 bytes in base64"),
        (f"a:{KEY[:-2]}9=", "32 bytes in base64"),
        (f"a:{KEY}{KEY}", "32 bytes in base64"),
        (f"a:{KEY} b:AAAA", "encryption key 2 must have"),
        (f"a:{KEY} a:{KEY}", "the id of an earlier one"),
    ):
        with pytest.raises(ValueError, match=re.escape(why)) as refused:
            Keys.parse(text)
        assert KEY[8:16] not in str(refused.value) and digits[8:16] not in str(refused.value)


def test_a_job_is_encrypted_from_python_to_python(start: Start, jobs: Jobs, with_old: Keys) -> None:
    parent = confide.enqueue(jobs.db, text="a secret of the parent").id
    jobs.db.execute("begin")
    many = reveille.enqueue_many(jobs.db, [reveille.NewJob.of("fails", {"why": "a secret"}, encrypted=True)])
    jobs.db.execute("commit")
    assert payload_of(jobs.db, "jobs", parent)["reveille_encrypted"] == 1
    start(
        """
import os, reveille

# Neither the process that finds the schedules nor the child gets the keys.
assert "REVEILLE_ENCRYPTION_KEYS" not in os.environ

@reveille.task(encrypted=True)
def leaf(text: str): ...

@reveille.task(encrypted=True)
def confide(text: str):
    job = reveille.current_job()
    job.progress(text)
    return {"read": text, "leaf": job.enqueue(leaf.job("a secret of the leaf"))[0].id}

@reveille.task(encrypted=True, max_attempts=1)
def fails(why: str): raise reveille.Permanent(why)

@reveille.task(encrypted=True, every=1, arguments={"text": "a secret of the schedule"})
def pulse(text: str): return text
"""
    )
    finished = jobs.completed(parent)
    result = with_old.decrypt("confide", "result", finished["result"])
    assert result["read"] == "a secret of the parent"
    assert with_old.decrypt("confide", "progress", finished["progress"]) == "a secret of the parent"
    jobs.completed(result["leaf"])
    leaf = payload_of(jobs.db, "finished_jobs", result["leaf"])
    assert with_old.decrypt("leaf", "payload", leaf) == {"text": "a secret of the leaf"}
    error = jobs.dead(many[0].id)["errors"][0]["error"]
    assert with_old.decrypt("fails", "error", error) == "a secret"
    look = "select result from reveille.finished_jobs where kind = 'pulse' limit 1"
    tick = until(lambda: jobs.db.execute(look).fetchone(), "a tick")
    assert with_old.decrypt("pulse", "result", tick[0]) == "a secret of the schedule"
    assert jobs.db.execute(STORED).fetchall() == []


def test_keys_are_changed_without_a_failed_job(
    start: Start, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text(f"# newest first\n{NEW}\n{OLD}\n")
    both = Keys.parse((tmp_path / "keys").read_text())
    ids = []
    for keys in (OLD, NEW):
        encryption.use(Keys.parse(keys))
        ids.append(confide.enqueue(jobs.db, text="secret").id)
    encryption.use(None)
    monkeypatch.setenv("REVEILLE_ENCRYPTION_KEYS_FILE", str(tmp_path / "keys"))
    ids.append(confide.enqueue(jobs.db, text="secret").id)
    assert [payload_of(jobs.db, "jobs", id)["key"] for id in ids] == ["old", "new", "new"]
    monkeypatch.delenv("REVEILLE_ENCRYPTION_KEYS_FILE")
    ids.append(jobs.enqueue("plain", '{"text": "in plain text"}'))
    start(
        CONFIDE + "\n\n@reveille.task\ndef plain(text: str): return text\n",
        *("--queue", "default=4", "--encryption-keys-file", "keys", "--encrypt-kind", "confide"),
    )
    for id in ids[:3]:
        result = jobs.completed(id)["result"]
        assert result["key"] == "new" and both.decrypt("confide", "result", result) == "read: secret"
    assert jobs.completed(ids[3])["result"] == "in plain text"


def test_a_job_whose_key_is_missing_is_dead_and_keeps_its_payload(
    start: Start, jobs: Jobs, url: str, with_old: Keys
) -> None:
    ids = [confide.enqueue(jobs.db, text=f"secret {number}").id for number in range(3)]
    ids.append(jobs.enqueue("confide", '{"text": "in plain text"}'))
    stored = [payload_of(jobs.db, "jobs", id) for id in ids]
    worker = start(CONFIDE, **{NAME: NEW})
    for id, before, why in zip(ids, stored, ['the key "old", which this program lacks'] * 3 + ["not encrypted"]):
        failure = jobs.dead(id)["errors"][0]
        assert failure["reason"] == "undecodable" and why in failure["error"], failure
        assert payload_of(jobs.db, "dead_jobs", id) == before
    assert worker.stop() == 0
    # A worker without any key refuses the job, too.
    command("dead", "revive", str(ids[0]), DATABASE_URL=url)
    worker = start(CONFIDE, **{NAME: ""})
    failure = jobs.dead(ids[0])["errors"][-1]
    assert failure["reason"] == "undecodable" and "this worker has no keys" in failure["error"]
    assert worker.stop() == 0
    command("dead", "revive", "--reason", "undecodable", "--kind", "confide", DATABASE_URL=url)
    start(CONFIDE, "--queue", "default=4", "--accept-plain-text", **{NAME: f"{NEW} {OLD}"})
    keys = Keys.parse(f"{NEW} {OLD}")
    results = [keys.decrypt("confide", "result", jobs.completed(id)["result"]) for id in ids]
    assert results == [*(f"read: secret {number}" for number in range(3)), "read: in plain text"]


def test_a_child_gets_the_keys_only_if_it_is_told_to(start: Start, jobs: Jobs) -> None:
    source = """
import os, psycopg, reveille, reveille.encryption

@reveille.task(encrypted=True)
def leaf(text: str): ...

@reveille.task
def by_worker():
    try:
        reveille.current_job().enqueue(leaf.job("secret"))
    except reveille.RequestFailed as error:
        return str(error)

@reveille.task
def by_connection():
    with psycopg.connect(os.environ["DATABASE_URL"]) as db:
        try:
            return str(leaf.enqueue(db, text="secret").id)
        except reveille.encryption.MissingKeys as error:
            return f"{error} {db.execute('select 1').fetchone()}"
"""
    options = ("--queue", "default=4", "--pass-database")
    worker = start(source, *options)
    by_worker, by_connection = (jobs.enqueue(kind) for kind in ("by_worker", "by_connection"))
    assert "the worker has no keys for this kind" in jobs.completed(by_worker)["result"]
    missing = jobs.completed(by_connection)["result"]
    assert missing.startswith("there are no encryption keys") and missing.endswith("(1,)")
    assert worker.stop() == 0
    passed = ("--pass-env", NAME, "--encrypt-kind", "leaf")
    start(source, *options, *passed, **{NAME: OLD})
    leaf = int(jobs.completed(jobs.enqueue("by_connection"))["result"])
    jobs.completed(leaf)
    assert jobs.db.execute(STORED).fetchall() == []


def test_what_cannot_be_encrypted_is_not_sent(db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    with pytest.raises(MissingKeys, match=NAME):
        confide.enqueue(db, text="secret")
    monkeypatch.setenv(NAME, OLD)
    monkeypatch.setenv("REVEILLE_ENCRYPTION_KEYS_FILE", "/keys")
    with pytest.raises(ValueError, match="not from both"):
        confide.enqueue(db, text="secret")
    monkeypatch.delenv(NAME)
    with pytest.raises(ValueError, match="cannot read the encryption keys in /keys: No such file"):
        confide.enqueue(db, text="secret")
    encryption.use(Keys.parse(OLD))
    try:
        with pytest.raises(reveille.InvalidJob, match="larger than the limit"):
            # The stored form is a third larger.
            confide.enqueue(db, text="s" * (900 << 10))
        confide.options(max_payload=2 << 20).enqueue(db, text="s" * (900 << 10))
    finally:
        encryption.use(None)
    with pytest.raises(reveille.InvalidJob, match="encrypted must be True or False"):
        reveille.NewJob.of("confide", {}, encrypted=cast(bool, "yes"))
    count = db.execute("select count(*), count(payload -> 'ciphertext') from reveille.jobs").fetchone()
    assert count == (1, 1)


@with_tasks
def test_django_reads_the_encrypted_results_of_its_tasks(url: str, jobs: Jobs, tmp_path: Path) -> None:
    keys = {NAME: OLD}
    program = """
from django.tasks import task_backends
from tests.shop.tasks import fails, welcome
backend = task_backends["encrypted"]
"""
    enqueues = """
for task, arguments in ((welcome, ["a secret guest"]), (fails, [])):
    print(backend.enqueue(task.using(backend="encrypted"), arguments, {}).id)
"""
    ids = in_the_project(url, program + enqueues, keys).split()
    arguments = ["--django", "--queue", "default=1", "--queue", "mail=1"]
    worker = Worker(url, tmp_path, arguments, PROJECT | keys | {"SHOP_DATABASE_URL": url})
    until(lambda: jobs.row("finished_jobs", int(ids[0])) and jobs.row("dead_jobs", int(ids[1])), "both ends")
    assert worker.stop() == 0
    looks = f"""
from reveille.encryption import MissingKeys
try:
    one, other = (backend.get_result(id) for id in {ids})
    print(one.args, one.return_value, other.errors[0].exception_class_path)
except MissingKeys as error:
    print(error)
"""
    said = in_the_project(url, program + looks, keys)
    assert said == "['a secret guest'] welcome, a secret guest builtins.ValueError\n"
    assert in_the_project(url, program + looks).startswith("there are no encryption keys")
    assert jobs.db.execute(STORED).fetchall() == []


def test_tests_need_no_keys() -> None:
    with reveille.testing.captured() as jobs:
        confide.enqueue(None, text="secret")
    assert jobs[0].payload == {"text": "secret"} and jobs[0].options == {"encrypted": True}
    assert jobs.work() == ["read: secret"]


def test_values_are_decrypted_on_the_command_line(with_old: Keys, jobs: Jobs, url: str) -> None:
    def run(*arguments: str, input: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "reveille.encryption", *arguments]
        return subprocess.run(program, input=input, capture_output=True, text=True)

    stored = run("encrypt", "confide", "payload", input='{"text": "é"}\n').stdout
    assert with_old.decrypt("confide", "payload", stored) == {"text": "é"}
    assert run("decrypt", "confide", "payload", input=stored).stdout == '{"text": "é"}\n'
    id = confide.enqueue(jobs.db, text="secret").id
    command("edit", str(id), "--payload", stored, DATABASE_URL=url)
    assert payload_of(jobs.db, "jobs", id) == json.loads(stored)
    refused = run("decrypt", "confide", "result", input=stored)
    assert refused.returncode == 1 and "comes from another kind or field" in refused.stderr
    error = run("encrypt", "confide", "error", input="no luck\n").stdout
    assert run("decrypt", "confide", "error", input=error).stdout == "no luck\n"
    assert run("decrypt", "confide", input="").returncode == 2
