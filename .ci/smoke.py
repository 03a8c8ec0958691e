"""Use the installed package as a first-time user does: migrate, add two jobs, work on them, find none left.

Run with DATABASE_URL, from a folder outside the checkout, by the interpreter the wheel was installed for.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import graphile_worker_py
from graphile_worker_py import Queue

COMMAND = str(Path(sys.executable).with_name("graphile-worker-py"))

queue = Queue(schema="first job")
done: list[str] = []


@queue.task
def greet(payload: dict[str, str]) -> None:
    """Remember whom the job was for."""
    done.append(payload["name"])
    print(f"hello, {payload['name']}")


def command(*arguments: str) -> None:
    subprocess.run([COMMAND, *arguments, "--schema", "first job"], check=True)


def main() -> None:
    """Do it from the command line, then from Python."""
    assert Path(graphile_worker_py.__file__).is_relative_to(sys.prefix), graphile_worker_py.__file__
    command("migrate")
    command("add", "greet", '{"name": "from the command line"}')
    command("run", "smoke:queue", "--once")
    greet.add_job({"name": "from Python"})
    with queue:
        queue.run_once()
        assert done == ["from Python"], done
        assert not list(queue.jobs()), queue.jobs()


if __name__ == "__main__":
    main()
