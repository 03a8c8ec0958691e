"""Who is compared: our worker, Node's, and a bare loop of SQL statements. The peers from PyPI are in peers.py.

Ours is the command that users run, at its defaults but for the number of threads and a quiet log. Node's schema is
installed by Node, its jobs are added by its addJobs, and "tuned" is what its documentation offers for throughput. All
work on jobs of the same task, with payloads like {"id": 1}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from measuring import HERE, Command, Side, run

sys.path.insert(0, str(HERE.parent / "tests"))

from interop import node

PROGRAMS = HERE / "programs"
THREADS = 24
NODE = f"Node {node.NEWEST}"


def ours(
    concurrency: int | None = THREADS,
    *,
    supervised: int = 1,
    history: bool = False,
    task: str = "noop",
    module: str = "jobs",
    environment: Mapping[str, str] | None = None,
) -> Side:
    """Return our worker; without a concurrency at all its defaults, supervised as so many processes of one command.

    history: it keeps one.
    """

    def work(url: str) -> Command:
        options = [] if concurrency is None else ["--concurrency", str(concurrency)]
        options += ["--processes", str(supervised)] if supervised > 1 else []
        options += ["--history", "7d"] if history else []
        return cli("run", f"{module}:queue", *options, "--log-level", "error", "--database", url, more=environment)

    name = "ours, defaults" if concurrency is None else f"ours, {concurrency} thread{'s'[: concurrency != 1]}"
    if supervised > 1:
        name = f"ours, --processes {supervised}"
    if history:
        name = "ours, --history 7d"
    return Side(name, lambda url, jobs: produce(url, jobs, task=task), work, ready=supervised)


def cli(*arguments: str, more: Mapping[str, str] | None = None) -> Command:
    """Return the command line of graphile-worker-py."""
    return [sys.executable, "-m", "graphile_worker_py", *arguments], {**os.environ, **(more or {})}


def produce(url: str, jobs: int, *, task: str = "noop") -> Command:
    """Return the command that installs our schema and adds jobs."""
    return [sys.executable, str(PROGRAMS / "produce.py"), url, str(jobs), "--task", task], dict(os.environ)


def nodes(concurrency: int = THREADS, *, tuned: bool = True, environment: Mapping[str, str] | None = None) -> Side:
    """Return Node's worker: tuned for throughput, or as it comes."""
    how = "tuned" if tuned else "defaults"

    def work(url: str) -> Command:
        command = [node.binary(node.NEWEST), str(installed("worker.mjs")), how, str(concurrency)]
        return command, node.environment(node.NEWEST, url, {"NODE_ENV": "production", **(environment or {})})

    return Side(f"{NODE}, {how}", produce_in_node, work)


def produce_in_node(url: str, jobs: int) -> Command:
    """Return the command that installs Node's schema and adds jobs."""
    return [node.binary(node.NEWEST), str(installed("produce.mjs")), str(jobs)], node.environment(node.NEWEST, url)


def loop(*, burning: bool = False) -> Side:
    """Return the bare loop, one connection to a process: 500 jobs a claim."""

    def work(url: str) -> Command:
        command = [sys.executable, str(PROGRAMS / "loop.py"), url, *(["burn"] if burning else [])]
        return command, dict(os.environ)

    return Side("bare SQL loop", produce, work)


def node_is_missing() -> str | None:
    """Return why Node's worker can't be measured here, None if it can."""
    try:
        node.installed()
        node.binary(node.NEWEST)
    except node.Unavailable as missing:
        return str(missing)
    return None


def node_version() -> str:
    """Return the version of the Node.js that runs Node's worker."""
    return run(([node.binary(node.NEWEST), "--version"], dict(os.environ))).strip().lstrip("v")


def installed(script: str) -> Path:
    """Return a copy of a script of ours where Node finds the packages."""
    target = node.installed() / f"bench-{script}"
    target.write_bytes((PROGRAMS / script).read_bytes())
    return target
