"""`flask worker`: the commands, on the application's queue, tasks and configuration."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from command_line import DEADLINE, environment
from flask import Flask

from graphile_worker_py import Queue
from graphile_worker_py.cli import main
from graphile_worker_py.cli._configuration import Setting, SettingArgument
from graphile_worker_py.cli.run import command
from graphile_worker_py.contrib.flask import GraphileWorker
from graphile_worker_py.contrib.flask.command_line import _defaults
from graphile_worker_py.contrib.flask.settings import OF_QUEUE, OF_RUN

APP = """
import os
from flask import Flask, current_app
from graphile_worker_py.cli._configuration import Setting, SettingArgument
from graphile_worker_py.cli.run import command
from graphile_worker_py.contrib.flask import GraphileWorker
from graphile_worker_py.contrib.flask.settings import OF_QUEUE, OF_RUN

worker = GraphileWorker()

@worker.task
def note(payload):
    print("note", payload, "in", current_app.name, flush=True)

def create_app(name="made"):
    app = Flask(name)
    app.config.from_prefixed_env()
    app.config["GRAPHILE_WORKER_CONCURRENCY"] = 3
    worker.init_app(app)
    return app
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an application in it."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def start(folder: Path, migrated_url: str) -> Iterator[Any]:
    """Return a function that starts the flask command; what is left of it is killed at the end."""
    with ExitStack() as stack:

        def started(*words: str, app: str = "app", **more: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "flask", "--app", app, "worker", *words],
                cwd=folder,
                env=environment(FLASK_GRAPHILE_WORKER_DATABASE_URL=migrated_url, **more),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield started


def test_a_worker_runs_and_stops(start: Any, queue: Queue) -> None:
    process = start("run", app="app:create_app('other')")
    queue.add_job("note", {"a": 1})
    assert process.stdout.readline() == "note {'a': 1} in other\n"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (0, ""), errors


def test_several_processes_and_once(start: Any, queue: Queue) -> None:
    queue.add_job("note", 1)
    output, errors = start("run", "--processes", "2", "--once", "-c", "1").communicate(timeout=DEADLINE)
    assert "note 1 in made\n" in output, errors
    assert output.count(" completed, ") == 2


def test_options_and_the_environment_are_stronger_than_the_application(start: Any, folder: Path) -> None:
    (folder / "graphile-worker-py.toml").write_text("concurrency = 4\nstuck-after = 5")
    output, errors = start("run", "--print-config", GRAPHILE_WORKER_GRACE="7").communicate(timeout=DEADLINE)
    assert "concurrency = 3  # settings\n" in output, errors
    assert "grace = 7.0  # environment: GRAPHILE_WORKER_GRACE\n" in output
    assert "stuck-after = 5.0  # graphile-worker-py.toml\n" in output


def test_every_setting_of_run_is_one_of_the_application() -> None:
    of_run = {str(one.name).upper() for one in command.params if isinstance(one, (Setting, SettingArgument))}
    assert of_run - {"TARGET", "DATABASE", "SCHEMA", "LISTEN"} == set(OF_RUN)
    of_queue = {name.upper() for name in inspect.signature(Queue).parameters}
    assert of_queue - {"DATABASE"} == set(OF_QUEUE)


# The other commands, in this process.


@pytest.fixture
def worker(database_url: str) -> Iterator[GraphileWorker]:
    """Return the extension of an application, whose schema is not there yet."""
    app = Flask("app")
    app.config.update(GRAPHILE_WORKER_DATABASE_URL=database_url, GRAPHILE_WORKER_SCHEMA="elsewhere")
    worker = GraphileWorker(app)
    yield worker
    worker.queue.close()


def flask(worker: GraphileWorker, *words: str) -> tuple[int, str, str]:
    assert worker._app is not None
    done = worker._app.test_cli_runner().invoke(args=["worker", *words])
    return done.exit_code, done.stdout, done.stderr


def test_commands_are_about_the_applications_queue(worker: GraphileWorker) -> None:
    code, _, errors = flask(worker, "stats")
    assert (code, errors.partition(" (")[0]) == (
        4,
        "Error: schema 'elsewhere' is not installed here, or not visible to this role: run queue.migrate() "
        "or graphile-worker-py migrate",
    )
    assert flask(worker, "migrate")[0] == 0
    assert flask(worker, "add", "note", '{"a": 1}', "--priority", "-3") == (0, "1\n", "")
    assert flask(worker, "add", "note", "--", "-5") == (0, "2\n", "")
    assert [(info.id, info.priority) for info in worker.queue.jobs()] == [(1, -3), (2, 0)]
    assert flask(worker, "jobs", "cancel", "1")[0] == 0
    assert flask(worker, "crontab", "list")[0] == 0
    assert "note" in flask(worker, "tasks")[1]
    assert flask(worker, "add", "note", "--schema", "nowhere")[0] == 4


def test_a_file_does_not_take_the_worker_away_from_the_application(
    worker: GraphileWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("graphile-worker-py.toml").write_text('database = "dbname=x"\nschema = "y"\ngrace = 5\n')
    output = flask(worker, "run", "--print-config")[1]
    place = [line for line in output.splitlines() if line.startswith(("database", "schema"))]
    assert [line.partition("  # ")[2] for line in place] == ["settings", "settings"]
    assert 'schema = "elsewhere"' in output
    assert "grace = 5.0  # graphile-worker-py.toml" in output


def test_a_process_with_several_applications_works_for_the_one_it_is_called_for(worker: GraphileWorker) -> None:
    from graphile_worker_py.contrib.flask import current

    for one in (worker, GraphileWorker(Flask("other"))):
        assert one._app is not None
        with one._app.app_context():
            assert current.queue is one.queue
    assert not hasattr(current, "nothing")


def test_the_demo_makes_a_schema_of_its_own(worker: GraphileWorker) -> None:
    assert worker._app is not None
    with worker._app.app_context():
        assert _defaults(main, "demo") == {"database": worker.queue.database.source}


def test_help_and_mistakes(worker: GraphileWorker) -> None:
    assert flask(worker, "--help")[:2] == flask(worker, "-h")[:2]
    code, output, _ = flask(worker, "--help")
    assert (code, output.splitlines()[0]) == (0, "Usage: flask worker [OPTIONS] [COMMAND] [ARGS]...")
    assert flask(worker)[0] == 2
    assert flask(worker, "stats", "--help")[1].startswith("Usage: flask worker stats [OPTIONS]")
    assert flask(worker, "rum")[0] == 2
    assert "flask worker" in flask(worker, "rum")[2]
    assert flask(worker, "add", "note", "{")[0] == 2
    code, _, errors = flask(worker, "run", "app:queue")
    assert (code, "unexpected extra argument (app:queue)" in errors) == (2, True)
