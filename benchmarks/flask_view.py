"""Measure what add_job adds to a view of Flask's: uploads at a steady rate, with it and without it, in turns.

    python benchmarks/flask_view.py [URL] [--rate 100] [--seconds 30]

The application is that of examples/flask_uploads under gunicorn with four processes; the worker is not running, for on
a small machine it would be measured too. Requests are sent when they are due, whether or not others were answered, and
timed from then on: who has to wait for a process counts as slow. Give a conninfo, or nothing for an embedded server.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from measuring import DURABLE
from PIL import Image
from psycopg import sql

from graphile_worker_py import Queue
from graphile_worker_py.embedded import EmbeddedPostgres

NAME = "bench_flask"
SLICE = 0.5  # seconds until it is the other view's turn: what else the machine does then meets both alike
VIEWS = ("/without-a-job", "/pictures")
BOUNDARY = "a-boundary"
HERE = Path(__file__).resolve().parent


class Unix(http.client.HTTPConnection):
    """A connection to a server on a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("pictures", timeout=30)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


@contextmanager
def database(url: str) -> Iterator[str]:
    """Make a database, yield its URL, and drop it."""
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(NAME))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(NAME)))
        info = connection.info
        yield f"postgresql://{info.user}:{info.password}@/{NAME}?host={info.host}&port={info.port}"
        connection.execute(drop)


@contextmanager
def server(url: str, folder: str) -> Iterator[str]:
    """Run gunicorn, and yield the path of its socket."""
    environment = {**os.environ, "DATABASE_URL": url, "FLASK_UPLOADS": folder, "HOME": folder, "PYTHONPATH": str(HERE)}
    path = os.path.join(folder, "http")
    create = [sys.executable, "-m", "flask", "--app", "programs.uploads", "create-tables"]
    subprocess.run(create, env=environment, check=True, cwd=HERE)
    words = ["-m", "gunicorn", "-w", "4", "--preload", "--bind", f"unix:{path}", "programs.uploads:create_app()"]
    process = subprocess.Popen([sys.executable, *words], env=environment, cwd=HERE)
    while not os.path.exists(path):
        time.sleep(0.1)
    try:
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def body() -> bytes:
    """Return a form with a small picture in it."""
    file = io.BytesIO()
    Image.effect_noise((64, 48), 50).save(file, "JPEG")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="x.jpeg"\r\n\r\n'
    return head.encode() + file.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()


def seconds(path: str, view: str, *, form: bytes, due: float) -> float:
    """Upload when it is due, and return how long that took from then on; raise OSError where it fails."""
    time.sleep(max(0.0, due - time.perf_counter()))
    connection = Unix(path)
    connection.request("POST", view, form, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    status = connection.getresponse().status
    took = time.perf_counter() - due
    connection.close()
    if status != 303:
        raise OSError(f"{view} answered {status}")
    return took


def load(path: str, *, rate: float, duration: float) -> dict[str, list[float]]:
    """Send requests to both views in turns, for so long to each, and return the seconds that each took."""
    form, took, began = body(), {view: [] for view in VIEWS}, time.perf_counter() + 1
    with ThreadPoolExecutor(64) as clients:
        asked = []
        for number in range(int(2 * duration * rate)):
            due = began + number / rate
            view = VIEWS[int(number / rate / SLICE) % 2]
            asked.append((view, clients.submit(seconds, path, view, form=form, due=due)))
        for view, future in asked:
            took[view].append(future.result())
    return took


@contextmanager
def counting(url: str) -> Iterator[list[int]]:
    """Look ten times a second how many connections there are beside this one, and yield where the counts are put."""
    counts: list[int] = []
    over = threading.Event()

    def look() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            query = "select count(*) - 1 from pg_stat_activity where datname = current_database()"
            while not over.wait(0.1):
                counts.append((connection.execute(query).fetchone() or (0,))[0])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


def report(took: dict[str, list[float]]) -> None:
    """Print how long either view took, and the difference."""
    found = {}
    for view, times in took.items():
        cuts = statistics.quantiles(times, n=100)
        found[view] = median, p95, p99 = cuts[49] * 1000, cuts[94] * 1000, cuts[98] * 1000
        print(f"{view}: {len(times)} requests, median {median:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms")
    without, with_job = (found[view] for view in VIEWS)
    print(f"added by add_job: median {with_job[0] - without[0]:.2f} ms, p95 {with_job[1] - without[1]:.2f} ms")


def main() -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description="Measure what add_job adds to a view of Flask's.")
    parser.add_argument("url", nargs="?", help="a server to make a database in")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="for either view")
    given = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(database(given.url or stack.enter_context(EmbeddedPostgres(settings=DURABLE)).url))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        path = stack.enter_context(server(url, folder))
        load(path, rate=20, duration=2)  # every process has its connection then
        with counting(url) as counts:
            report(load(path, rate=given.rate, duration=given.seconds))
        print(f"connections: {max(counts)} at most")
        with Queue(url) as queue:
            added = sum(stats.ready for stats in queue.stats())
            print(f"jobs: {added}")


if __name__ == "__main__":
    main()
