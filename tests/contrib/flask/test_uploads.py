"""examples/flask_uploads as a service: gunicorn with several processes, a worker that is killed, many uploads."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from command_line import DEADLINE, ROOT, environment
from PIL import Image
from urls import as_url

from graphile_worker_py import Queue

EXAMPLE = ROOT / "examples" / "flask_uploads"
SIZES = [64, 128, 256, 512, 1024]
PICTURES = 30

# As `flask worker run`, but that others take over its jobs sooner, and it tells when it begins.
WORKER = """
from app import create_app, worker
from graphile_worker_py import WorkerPool

app = create_app()
with app.app_context():
    queue = worker.queue
WorkerPool(queue, 2, poll_interval=0.1, heartbeat=0.2, dead_after=1).run()
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, migrated_url: str) -> Iterator[Start]:
    """Return a function that starts a program of the example; what is left of it is killed at the end."""
    more = {"DATABASE_URL": as_url(migrated_url), "FLASK_UPLOADS": str(tmp_path / "uploads"), "HOME": str(tmp_path)}
    with ExitStack() as stack:

        def started(*words: str, **options: Any) -> subprocess.Popen[str]:
            process = subprocess.Popen([sys.executable, *words], cwd=EXAMPLE, env=environment(**more), **options)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        assert started("-m", "flask", "--app", "app", "create-tables").wait(DEADLINE) == 0
        yield started


@pytest.fixture
def server(start: Start, tmp_path: Path) -> Iterator[Callable[[], httpx.Client]]:
    """Return what makes clients of four processes that share one application, loaded before they were forked."""
    socket = os.path.relpath(tmp_path / "http", EXAMPLE)
    process = start(
        *("-m", "gunicorn", "--workers", "4", "--preload", "--bind", f"unix:{socket}", "app:create_app()"),
        stderr=subprocess.PIPE,
        text=True,
    )
    log = iter(process.stderr or ())
    assert len(list(islice((line for line in log if "Booting worker" in line), 4))) == 4
    reader = threading.Thread(target=list, args=(log,))  # that it is never held up by a full pipe
    reader.start()
    yield lambda: httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "http")), base_url="http://pictures")
    process.send_signal(signal.SIGTERM)
    assert process.wait(2 * DEADLINE) == 0  # gunicorn's own grace is half of that
    reader.join()


def picture(seed: int) -> bytes:
    """Return a JPEG that takes some work: of noise, so that no two are alike."""
    noise = Image.frombytes("L", (160, 120), random.Random(seed).randbytes(160 * 120))  # noqa: S311 - no secret
    file = io.BytesIO()
    noise.resize((1600, 1200)).save(file, "JPEG")
    return file.getvalue()


def upload(client: httpx.Client, seed: int) -> int:
    answer = client.post("/pictures", files={"picture": (f"<{seed}>.jpeg", picture(seed))}, timeout=DEADLINE)
    assert answer.status_code == 303, answer.text
    return int(answer.headers["location"].rpartition("/")[2])


def wait_until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(DEADLINE / 0.02)):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("not so in time")


def test_a_killed_worker_costs_no_thumbnail(
    start: Start, server: Callable[[], httpx.Client], queue: Queue, db: psycopg.Connection, tmp_path: Path
) -> None:
    def count(table: str) -> int:
        return int(db.execute(f"select count(*) from {table}").fetchone()[0])  # noqa: S608 - one of ours

    worker = start("-W", "error", "-c", WORKER)
    with server() as client:
        with ThreadPoolExecutor(6) as uploaders:
            ids = list(uploaders.map(lambda seed: upload(client, seed), range(PICTURES)))
        wait_until(lambda: count("thumbnails") > 0 and bool(queue.jobs(state="running").items))
        worker.kill()
        worker.wait(DEADLINE)
        assert 0 < count("graphile_worker._private_jobs") < PICTURES
        held = [info.id for info in queue.jobs(state="running")]
        second = start("-W", "error", "-c", WORKER)
        wait_until(lambda: count("graphile_worker._private_jobs") == 0)
        second.send_signal(signal.SIGTERM)
        assert second.wait(DEADLINE) == 0

        assert sorted(ids) == list(range(1, PICTURES + 1))
        assert held, "it was killed while it had nothing to do"
        kept = db.execute("select picture_id, array_agg(size order by size) from thumbnails group by 1 order by 1")
        assert kept.fetchall() == [(id, SIZES) for id in sorted(ids)]
        names = {path.name for path in (tmp_path / "uploads").iterdir() if path.suffix != ".part"}
        assert names == {f"{id}{end}" for id in ids for end in ("", *(f"-{size}.jpeg" for size in SIZES))}
        for id in ids:
            assert client.get(f"/pictures/{id}/progress").json() == {
                "state": "done",
                "done": 5,
                "total": 5,
                "sizes": SIZES,
            }
            for size in (64, 1024):
                shown = client.get(f"/pictures/{id}/{size}")
                assert Image.open(io.BytesIO(shown.content)).size == (size, size * 3 // 4)


def test_a_page_shows_progress_and_what_is_no_picture_is_refused(
    server: Callable[[], httpx.Client], queue: Queue, db: psycopg.Connection
) -> None:
    with server() as client:
        for files in ({}, {"picture": ("x.jpeg", b"GIF89a, but no more")}, {"picture": ("x.svg", b"<svg/>")}):
            refused = client.post("/pictures", files=files)
            assert (refused.status_code, "Choose a picture" in refused.text) == (400, True)
        assert queue.jobs().items == []
        id = upload(client, 1)
        (job,) = queue.jobs()
        page = client.get(f"/pictures/{id}").text
        assert ("&lt;1&gt;.jpeg" in page, f"/pictures/{id}/progress" in page) == (True, True)
        assert "&lt;1&gt;.jpeg" in client.get("/").text
        assert client.get(f"/pictures/{id}/64").status_code == 404
        assert client.get(f"/pictures/{id + 1}/progress").status_code == 404
        told = client.get(f"/pictures/{id}/progress").json()
        assert told == {"state": "waiting", "done": 0, "total": 5, "sizes": []}
        db.execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1")
        db.execute(
            "insert into graphile_worker._private_py_progress (job_id, done, total, attempt, updated_at)"
            " values (%s, 2, 5, 1, now())",
            [job.id],
        )
        assert client.get(f"/pictures/{id}/progress").json() == {**told, "state": "running", "done": 2}
        db.execute("update graphile_worker._private_jobs set locked_at = null, locked_by = null, attempts = 3")
        assert client.get(f"/pictures/{id}/progress").json()["state"] == "failed"
