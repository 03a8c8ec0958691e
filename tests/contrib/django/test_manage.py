"""manage.py, as people run it: in a process of its own, with warnings as errors."""

from __future__ import annotations

import os
import queue as queues
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from graphile_worker_py import Queue

PROJECT = Path(__file__).parent / "project"
ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-W", "error", "-u", "manage.py"]
DEADLINE = 60.0


def environment(url: str, **more: str) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "POST_DRIVER") if name in os.environ}
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "POST_DATABASE": url, **more}


def manage(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=PROJECT,
        env=environment(url, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )


class Worker:
    """`manage.py graphile_worker`, and what it has printed so far."""

    def __init__(self, url: str, *arguments: str, folder: Path, **more: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "graphile_worker", *arguments],
            cwd=folder,
            env=environment(url, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._news: queues.SimpleQueue[str | None] = queues.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._news.put(line)
        self._news.put(None)

    def says(self, words: str) -> None:
        """Wait for a line with these words."""
        while True:
            try:
                line = self._news.get(timeout=DEADLINE)
            except queues.Empty:
                line = None
            assert line is not None, "".join(self.lines)
            self.lines.append(line)
            if words in line:
                return

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self._reader.join()
            self.process.stdout.close()


@pytest.fixture
def worker(project_url: str) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(*arguments: str, folder: Path = PROJECT, **more: str) -> Worker:
        started.append(Worker(project_url, *arguments, folder=folder, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


def one(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchone()[0]


def test_migrate_leaves_what_another_has_installed_and_other_databases(migrated_url: str, database_url: str) -> None:
    with Queue(migrated_url) as queue:
        queue.add_job("send_letter", {"to": "ann"})
    done = manage(migrated_url, "migrate", "graphile_worker")
    assert done.returncode == 0, done.stderr
    assert "0001_000018_tables... OK" in done.stdout
    assert one(migrated_url, "select count(*) from graphile_worker._private_jobs") == 1
    done = manage(migrated_url, "migrate", "graphile_worker", "--database", "other", POST_OTHER_DATABASE=database_url)
    assert done.returncode == 0, done.stderr
    assert one(database_url, "select count(*) from pg_namespace where nspname = 'graphile_worker'") == 0
    done = manage(migrated_url, "migrate", "graphile_worker", "zero")
    assert done.returncode == 0, done.stderr
    assert one(migrated_url, "select count(*) from graphile_worker._private_jobs") == 1


def test_migrate_installs_everything_in_the_schema_of_the_settings(database_url: str) -> None:
    settings = {"POST_WORKER": '{"SCHEMA": "The \\"jobs\\""}'}
    done = manage(database_url, "check", "--deploy", "--database", "default", **settings)
    assert "graphile_worker.E007" in done.stderr
    assert "Run `manage.py migrate --database default`, or, if Django finds nothing to apply there, " in done.stderr
    done = manage(database_url, "graphile_worker", "--once", **settings)
    assert (done.returncode, done.stdout) == (4, "")
    done = manage(database_url, "migrate", **settings)
    assert done.returncode == 0, done.stderr
    done = manage(database_url, "graphile_worker", "add", "send_letter", '{"to": "ann"}', "--job-key=a", **settings)
    assert (done.stdout, done.stderr) == ("1\n", "")
    done = manage(database_url, "graphile_worker", "--once", "--skip-checks", "--settings", "post.settings", **settings)
    assert done.stdout.startswith("sent to ann\n1 completed"), done.stderr
    assert one(database_url, 'select count(*) from "The ""jobs"""._private_jobs') == 0
    moved = {"POST_WORKER": '{"SCHEMA": "moved"}'}  # which Django's migrations, all applied, know nothing of
    done = manage(database_url, "graphile_worker", "add", "send_letter", **moved)
    assert "In this project, run `manage.py migrate --database default`, or, if Django finds nothing" in done.stderr
    done = manage(database_url, "graphile_worker", "migrate", "--verbosity", "0", "--database=default", **moved)
    assert (done.returncode, done.stdout) == (0, "Schema 'moved': migrations 1 to 20 applied.\n"), done.stderr


def test_a_worker_takes_the_settings_and_stops_when_told(project_url: str, worker: Callable[..., Worker]) -> None:
    running = worker(POST_WORKER='{"CONCURRENCY": 1, "FORBIDDEN_FLAGS": ["later"], "POLL_INTERVAL": 60}')
    running.says("works on send_letter, lose_the_connection in 1 threads")
    with Queue(project_url) as queue:
        queue.add_job("send_letter", {"to": "ben"}, flags=["later"])
        queue.add_job("lose_the_connection")
        queue.add_job("send_letter", {"to": "ann"})
        running.says("sent to ann")  # on a connection of its own again
        assert running.end() == 0
        (left,) = queue.jobs()
        assert left.flags == ("later",)


def test_wrong_settings_and_wrong_words_are_told(project_url: str) -> None:
    done = manage(project_url, "graphile_worker", POST_WORKER='{"SHEMA": "x"}')
    assert done.returncode == 1
    assert "(graphile_worker.E002) GRAPHILE_WORKER has no option 'SHEMA'." in done.stderr
    assert "HINT: Did you mean 'SCHEMA'?" in done.stderr
    assert "Traceback" not in done.stderr
    done = manage(project_url, "graphile_worker", "rum")
    assert done.returncode == 2
    assert "No such command 'rum'" in done.stderr
    done = manage(project_url, "graphile_worker", "add", "--database", "default", "--", "send_letter", "-1")
    assert done.returncode == 0, done.stderr
    assert manage(project_url, "help", "graphile_worker").stdout.startswith("Usage: manage.py graphile_worker")


def test_the_demo_makes_a_schema_of_its_own() -> None:
    from graphile_worker_py.contrib.django.management.commands import graphile_worker

    assert graphile_worker._defaults("demo").keys() == {"database"}


def test_an_app_that_is_not_installed_says_so() -> None:
    engine = "{'ENGINE': 'django.db.backends.postgresql', 'NAME': 'post'}"
    code = f"""
import django, django.conf
django.conf.settings.configure(DATABASES={{"default": {engine}}})
django.setup()
from graphile_worker_py.contrib.django import queue
queue.add_job("send_letter")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr.strip().splitlines()[-1] == (
        "django.core.exceptions.ImproperlyConfigured: the job queue was used before Django was ready: "
        "add 'graphile_worker_py.contrib.django' to INSTALLED_APPS, and call django.setup() in a script of your own"
    )


def test_in_development_a_worker_starts_anew_when_the_code_changes(
    tmp_path: Path, project_url: str, worker: Callable[..., Worker]
) -> None:
    folder = shutil.copytree(PROJECT, tmp_path / "project")
    running = worker(folder=folder, POST_DEBUG="1")
    running.says("works on send_letter, lose_the_connection")
    tasks = folder / "pigeon" / "tasks.py"
    good = tasks.read_text()
    tasks.write_text(good + "\n\nthis is no Python\n")
    running.says("stopped, 0 handlers still running")
    running.says("The worker ended with 1; it is started anew when the code changes.")
    tasks.write_text(good.replace('"sent to"', '"sent anew to"'))
    running.says("works on send_letter, lose_the_connection")
    with Queue(project_url) as queue:
        queue.add_job("send_letter", {"to": "ann"})
    running.says("sent anew to ann")
    assert running.end(signal.SIGINT) == 0
