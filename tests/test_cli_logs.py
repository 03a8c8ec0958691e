"""What `run` logs: text, or a JSON object in each line."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
from command_line import Daemon, assert_error, graphile
from plain_sql import eventually

from graphile_worker_py import Queue
from graphile_worker_py.cli._logs import JsonFormatter

Start = Callable[..., Daemon]

LOGGING = """
import logging, warnings
from graphile_worker_py import Queue

queue = Queue()

@queue.task
def speak(payload, ctx):
    logging.getLogger("shop").warning("packing\\n%s", "ä", extra={"order": 7})
    try:
        raise ValueError("odd")
    except ValueError:
        ctx.logger.exception("no good")
    warnings.warn("old", stacklevel=1)
"""


def objects(text: str) -> list[dict[str, Any]]:
    assert text.isascii()
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines(folder: Path, migrated_url: str, queue: Queue) -> None:
    (folder / "speaking.py").write_text(LOGGING)
    (job,) = [queue.add_job("speak", {"password": "hunter2"})]
    done = graphile(
        *["run", "speaking:queue", "--once", "--log-format", "json", "--database", migrated_url],
        cwd=folder,
        more={"PYTHONWARNINGS": "default"},
    )
    assert "hunter2" not in done.stderr
    said = objects(done.stderr)
    about = {"job_id": job.id, "task_identifier": "speak", "attempts": 1}
    packing = next(one for one in said if one["logger"] == "shop")
    assert abs(datetime.fromisoformat(packing.pop("time").replace("Z", "+00:00")) - datetime.now(timezone.utc)) < (
        timedelta(minutes=5)
    )
    assert isinstance(packing.pop("pid"), int)
    assert packing == {"level": "warning", "logger": "shop", "message": "packing\nä", "order": 7, **about}
    failed = next(one for one in said if one["message"] == "no good")
    assert failed.items() >= about.items()
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith("ValueError: odd")
    assert any("odd" not in one["message"] and one["level"] == "info" and "job_id" not in one for one in said)


def test_an_error_that_ends_the_worker_is_json_too(folder: Path) -> None:
    done = graphile("run", "nowhere:queue", "--log-format", "json", "--debug", cwd=folder)
    (said,) = objects(done.stderr)
    assert (done.returncode, said["level"]) == (69, "critical")
    assert said["message"].startswith("Error: there is no module 'nowhere'")
    assert "ModuleNotFoundError" in said["exception"]
    assert_error(graphile("run", "nowhere:queue", "--log-format", "xml", cwd=folder), 2, "--log-format", "xml")


def test_parent_and_children_write_json(daemon: Start, db: psycopg.Connection) -> None:
    parent = daemon("--processes", "2", "--log-format", "json")
    living = "select pid from graphile_worker._private_py_pools order by pid"
    eventually(lambda: len(db.execute(living).fetchall()) == 2)
    victims = [pid for (pid,) in db.execute(living).fetchall()]
    os.kill(victims[0], signal.SIGKILL)
    eventually(lambda: len(db.execute(living).fetchall()) == 3)
    parent.signal(signal.SIGTERM)
    code, errors = parent.end()
    said = objects(errors)
    assert code == 0
    assert len({one["pid"] for one in said}) == 4
    assert any("ended with -9" in one["message"] for one in said)


def test_a_module_that_logs_by_itself_is_left_alone(folder: Path, migrated_url: str) -> None:
    own = "import logging\nfrom jobs import queue\nlogging.basicConfig(format='mine: %(message).20s')\n"
    (folder / "own.py").write_text(own)
    done = graphile(*["run", "own:queue", "--once", "--log-format", "json", "--database", migrated_url], cwd=folder)
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "mine: the module has set u"
    assert all(line.startswith("mine: ") for line in done.stderr.splitlines())


def test_odd_extras_do_no_harm() -> None:
    circle: list[object] = []
    circle.append(circle)
    formatter = JsonFormatter()
    for odd in (float("nan"), circle, {(1, 2): 3}, object(), "\udcff\x1b[31m"):
        record = logging.makeLogRecord({"msg": "hello", "name": "x", "odd": odd, "message": "not this", "job_id": 7})
        line = formatter.format(record)
        assert re.fullmatch(r"[ -~]+", line)
        assert json.loads(line)["message"] == "hello"
        assert "odd" in json.loads(line)
        assert (json.loads(line)["job_id"], json.loads(line)["pid"]) == (7, record.process)
    record = logging.makeLogRecord({"msg": "hello", "stack_info": "Stack:\n here", "exc_info": sys.exc_info()})
    assert json.loads(formatter.format(record))["stack"] == "Stack:\n here"
