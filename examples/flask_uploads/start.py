"""Start the uploads for a person: their database, the server and the worker, until Ctrl-C.

    python examples/flask_uploads/start.py        or: make example-flask

The database is that of DATABASE_URL, else one that is started for it and removed at the end, with the pictures.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from graphile_worker_py.embedded import EmbeddedPostgres

HERE = Path(__file__).resolve().parent
PATIENCE = 40.0  # seconds that the server and the worker get to end


def surroundings(stack: ExitStack) -> dict[str, str]:
    """Return the environment for all processes: a database and a folder, which end with the stack if they are ours."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if not environment.get("DATABASE_URL"):
        environment["DATABASE_URL"] = stack.enter_context(EmbeddedPostgres()).url
        environment["FLASK_UPLOADS"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="pictures"))
    return environment


def module(*words: str) -> list[str]:
    """Return the command that runs a module."""
    return [sys.executable, "-m", *words]


def main(port: int) -> int:
    """Run all of it until somebody interrupts it, or a process ends by itself; return 0 if both end as they should."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as stack:
        environment = surroundings(stack)
        create = module("flask", "--app", "app", "create-tables")
        subprocess.run(create, cwd=HERE, env=environment, check=True)  # noqa: S603 - ours
        commands = (
            module("gunicorn", "--workers", "4", "--preload", "--bind", f"127.0.0.1:{port}", "app:create_app()"),
            module("flask", "--app", "app", "worker", "run", "-c", "2"),
        )
        processes = [
            subprocess.Popen(command, cwd=HERE, env=environment, start_new_session=True)  # noqa: S603 - ours
            for command in commands
        ]
        print(f"Upload pictures at http://127.0.0.1:{port}/ - Ctrl-C ends it.", flush=True)
        while not stopped.wait(0.5) and all(process.poll() is None for process in processes):
            pass
        for process in processes:
            process.terminate()
        codes = [process.wait(PATIENCE) for process in processes]
    return 0 if stopped.is_set() and codes == [0, 0] else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start the uploads: their database, the server and the worker.")
    parser.add_argument("--port", type=int, default=8000)
    sys.exit(main(parser.parse_args().port))
