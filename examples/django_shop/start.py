"""Start the shop for a person: its database, its server and its worker, until Ctrl-C.

    python examples/django_shop/start.py        or: make example-django

The database is that of DATABASE_URL, else one that is started for it and removed at the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphile_worker_py.embedded import EmbeddedPostgres

SHOP = Path(__file__).resolve().parent
PATIENCE = 40.0  # seconds that the worker and the server get to end
ADMIN = {"DJANGO_SUPERUSER_USERNAME": "admin", "DJANGO_SUPERUSER_PASSWORD": "admin"}


@contextmanager
def database() -> Iterator[str]:
    """Yield where the database is; one of our own is there for as long as the block."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
    else:
        with EmbeddedPostgres() as server:
            yield server.url


def manage(*arguments: str) -> list[str]:
    """Return a command of Django's."""
    return [sys.executable, str(SHOP / "manage.py"), *arguments]


def prepare(environment: dict[str, str]) -> None:
    """Make the tables, and somebody who may use the admin, unless they are there."""
    subprocess.run(manage("migrate", "--verbosity", "0"), env=environment, check=True)
    create = manage("createsuperuser", "--noinput", "--email", "admin@example.org", "--verbosity", "0")
    subprocess.run(create, env={**environment, **ADMIN}, check=False, stderr=subprocess.DEVNULL)


def main(port: int) -> int:
    """Run the shop until somebody interrupts it, or one of its processes ends; return 0 if both end as they should."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with database() as url:
        environment = {**os.environ, "DATABASE_URL": url, "SHOP_DEBUG": "1", "PYTHONUNBUFFERED": "1"}
        environment.setdefault("SHOP_SECRET_KEY", "for development alone")  # else every restart would end the sessions
        prepare(environment)
        commands = [manage("runserver", f"127.0.0.1:{port}"), manage("graphile_worker")]
        processes = [subprocess.Popen(command, env=environment, start_new_session=True) for command in commands]
        print(
            f"The shop: http://127.0.0.1:{port}/ and its admin: http://127.0.0.1:{port}/admin/ (admin, admin).",
            flush=True,
        )
        print("Ctrl-C ends both.", flush=True)
        while not stopped.wait(0.5) and all(process.poll() is None for process in processes):
            pass
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
        server, worker = [process.wait(PATIENCE) for process in processes]
    return 0 if stopped.is_set() and worker == 0 and server in (0, -signal.SIGTERM) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start the shop: its database, its server and its worker.")
    parser.add_argument("--port", type=int, default=8000)
    sys.exit(main(parser.parse_args().port))
