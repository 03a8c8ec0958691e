"""Other queues on PostgreSQL from PyPI, drained as throughput.py does: `make bench ARGS=--peers`.

Each is installed into an environment of its own, under .cache, on first use, in the version named below. A small
program of each (programs/with_*.py) adds the jobs and works on them, with the settings its documentation offers for
many small jobs. What they promise differs, and so does what "done" leaves in the tables: the notes say it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from urllib.parse import quote, urlencode

import attrs
from measuring import HERE, Bench, Command, Side, drain, run
from psycopg.conninfo import conninfo_to_dict
from sides import PROGRAMS, ours

PART = "peers"
JOBS = 10_000
OUR_JOBS = 200_000  # or we would measure our start
LIMIT = 15.0  # seconds: of the slow ones, what was done by then is counted


@attrs.frozen
class Peer:
    """A package, what else it needs, how many at a time it is given, how to find an unfinished job, and a note."""

    name: str
    version: str
    requires: tuple[str, ...]
    count: int
    pending: str
    note: str


PEERS = (
    Peer(
        "procrastinate",
        "3.10.0",
        ("psycopg[binary,pool]",),
        24,
        "select id from procrastinate_jobs limit 1",
        "At least once; coroutines; told to delete what succeeded, which it keeps by default. Done: the row is gone.",
    ),
    Peer(
        "pgqueuer",
        "1.6.0",
        ("psycopg[binary]",),
        100,
        "select id from pgqueuer limit 1",
        "At least once; coroutines; batches of 100. Done: the row is gone from its queue (a log keeps what happened).",
    ),
    Peer(
        "chancy",
        "0.26.0",
        ("psycopg[binary,pool]",),
        24,
        "select id from chancy_jobs where state not in ('succeeded', 'failed', 'expired') limit 1",
        "At least once; coroutines; eager polling. Done: the row is marked; a pruner deletes it later.",
    ),
    Peer(
        "awa-pg",
        "0.6.9",
        ("typing-extensions",),
        24,
        "select id from awa.jobs where state in ('available', 'running', 'retryable', 'scheduled') limit 1",
        "At least once; coroutines on a core in Rust. Done: noted beside the row; whole partitions are emptied later.",
    ),
    Peer(
        "dramatiq-pg",
        "0.12.0",
        ("psycopg2-binary",),
        24,
        "select message_id from dramatiq.queue where state in ('queued', 'consumed') limit 1",
        "At least once; threads. Done: the row is marked; it is deleted after 30 days.",
    ),
    Peer(
        "huey",
        "3.5.4",
        ("psycopg[binary]",),
        24,
        "select id from huey_task limit 1",
        "At most once: a row is deleted before its task runs, and that is when it counts as done; threads.",
    ),
)


def measure(bench: Bench) -> None:
    """Measure ours and every peer that can be had; note what the others lack."""
    sides = [ours()]
    for peer in PEERS:
        try:
            side = side_of(peer, installed(peer))
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or error.stdout or str(error)).strip().splitlines()[-1]
            bench.notes[f"{peer.name} {peer.version}"] = f"Not measured, it could not be installed: {reason}"
            continue
        sides.append(side)
        bench.notes[side.name] = peer.note
    for _ in bench.turns(2):
        for side in sides:
            one(bench, side, OUR_JOBS if side is sides[0] else JOBS)


def one(bench: Bench, side: Side, jobs: int) -> None:
    """Measure one side once; what cannot run is noted, and measured no more."""
    if bench.notes.get(side.name, "").startswith("Not measured"):
        return
    count = bench.size(jobs)
    try:
        with bench.database() as url:
            run(side.produce(url, count))
            figures = drain(side, url, count, limit=LIMIT)
    except SystemExit as failure:
        bench.notes[side.name] = f"Not measured, it failed: {str(failure).strip().splitlines()[-1]}"
        return
    figures.pop("deadlocks")
    bench.add(PART, "fresh, one process", f"{side.name} ({count:,} jobs)", figures)


def side_of(peer: Peer, python: Path) -> Side:
    """Return a peer as a side."""
    program = str(PROGRAMS / f"with_{peer.name.partition('-')[0]}.py")

    def command(url: str, what: str, count: int) -> Command:
        return [str(python), program, as_url(url), what, str(count)], dict(os.environ)

    return Side(
        f"{peer.name} {peer.version}",
        lambda url, jobs: command(url, "produce", jobs),
        lambda url: command(url, "work", peer.count),
        pending=peer.pending,
    )


def installed(peer: Peer) -> Path:
    """Return the Python of the environment with a peer; install it if it is not there yet."""
    wanted = [f"{peer.name}=={peer.version}", *peer.requires]
    key = hashlib.sha256(repr((wanted, sys.version_info[:2])).encode()).hexdigest()[:8]
    folder = HERE.parent / ".cache" / "peers" / f"{peer.name}-{key}"
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *wanted]
        subprocess.run(install, check=True, capture_output=True, text=True)
        (folder / ".complete").touch()
    return python


def as_url(conninfo: str) -> str:
    """Return a conninfo as a URL that psycopg, psycopg2 and sqlx all read."""
    server = conninfo_to_dict(conninfo)
    host = str(server.get("host") or "localhost")
    name, port = quote(str(server.get("user") or "")), server.get("port") or 5432
    if password := server.get("password"):
        name += f":{quote(str(password), safe='')}"
    where = f"localhost:{port}" if host.startswith("/") else f"{host}:{port}"
    more = f"?{urlencode({'host': host})}" if host.startswith("/") else ""
    return f"postgresql://{name}@{where}/{quote(str(server['dbname']))}{more}"
