"""How everything here is measured: servers, databases, clocks and counters; and the file that figures are written to.

Each measurement has a database of its own. One process installs the schema and adds the jobs, others work on them.
These say when they are ready, and the clock starts when all are let go at once: what it sees is a worker that connects,
works, and deletes the last row. Autovacuum is left as it comes. Sides take turns, so that a change of the machine's
speed meets them all; figures are medians.

Nothing is copied from a template. That was measured too, with 200,000 jobs on PostgreSQL 18: a copy of a table that was
just loaded is drained as fast as that table, by Node's worker at 17,000 to 18,000 jobs a second against 15,000 to
18,000. But a minute later autovacuum has analysed the template, the copies inherit its statistics, and Node's worker
drains 70,000 a second of them: the analysed case under the name of the fresh one. Ours does not care, its plans do not
depend on statistics. Besides, a copy is followed by a checkpoint, so that the first change of each page logs the whole
page: 640 to 850 bytes a job instead of 500.

Progress is looked at every 20 ms, by the primary key from the lowest id that was there before: a count, or an
unordered look at the table, would walk over all that is finished, and slow down what it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from graphile_worker_py import __version__
from graphile_worker_py.embedded import EmbeddedPostgres

HERE = Path(__file__).parent
JOBS = "graphile_worker._private_jobs"
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
PATIENCE = 60.0  # seconds for a process to become ready

Command = tuple[list[str], dict[str, str]]
Workers = list[subprocess.Popen[bytes]]


@attrs.frozen
class Side:
    """Who is measured: how its schema is installed and jobs are added, and the command that works on them.

    `ready`: how many worker processes one command starts. `pending`: a query for one unfinished job; %s is the lowest
    id to look at, and the id it returns is where the next look begins.
    """

    name: str
    produce: Callable[[str, int], Command]
    work: Callable[[str], Command]
    ready: int = 1
    pending: str = f"select id from {JOBS} where id >= %s order by id limit 1"


@attrs.define
class Bench:
    """One run of measurements: the server, how much of everything, and what was found so far.

    Figures are kept by part, case and side, as lists with one entry to a round, under names that hold the unit.
    """

    url: str
    rounds: int
    scale: float
    only: list[str]
    figures: dict[str, dict[str, dict[str, dict[str, list[float]]]]] = attrs.Factory(dict)
    notes: dict[str, str] = attrs.Factory(dict)
    facts: dict[str, str] = attrs.Factory(dict)

    def wanted(self, part: str) -> bool:
        """Say whether this part is to be measured."""
        return not self.only or part in self.only

    def turns(self, most: int = 1_000) -> range:
        """Return the rounds of a part that steadies sooner than others, or takes long."""
        return range(min(self.rounds, most))

    def size(self, jobs: int) -> int:
        """Return how many jobs that is in this run."""
        return max(24, int(jobs * self.scale))

    def add(self, part: str, case: str, side: str, figures: dict[str, float]) -> None:
        """Keep the figures of one measurement."""
        kept = self.figures.setdefault(part, {}).setdefault(case, {}).setdefault(side, {})
        for name, figure in figures.items():
            kept.setdefault(name, []).append(figure)
        print(
            f"{part} | {case} | {side}: {', '.join(f'{value:,.4g} {name}' for name, value in figures.items())}",
            flush=True,
        )

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database, and drop it after; dropping ends with a checkpoint, so that each starts alike."""
        name = f"graphile_worker_bench_{os.getpid()}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            connection.execute(drop)
            connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
            try:
                yield make_conninfo(self.url, dbname=name)
            finally:
                connection.execute(drop)


def main(
    description: str,
    default: Path,
    measure: Callable[[Bench, argparse.Namespace], None],
    *,
    parts: Collection[str],
    rounds: int,
    options: Mapping[str, str] | None = None,
) -> None:
    """Read the command line, measure, print one table and write the figures."""
    from report import table

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("url", nargs="?", help="A server; else an embedded one, as durable as PostgreSQL comes.")
    parser.add_argument("--rounds", type=int, default=rounds, help="Some parts take fewer.")
    parser.add_argument("--scale", type=float, default=1.0, help="Of all sizes and durations.")
    parser.add_argument(
        "--only", action="append", default=[], choices=parts, metavar="PART", help="One of the parts; may be repeated."
    )
    parser.add_argument("--json", type=Path, help=f"Where figures go; all parts go to {default.name} by default.")
    for name, what in (options or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=what)
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not arguments.scale > 0:
        parser.error("--rounds takes 1 or more, --scale more than 0")
    began = time.time()
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedPostgres(settings=DURABLE)).url
        bench = Bench(url, arguments.rounds, arguments.scale, arguments.only)
        facts = about(url)
        measure(bench, arguments)
        facts.update(bench.facts)
    record = {
        "about": {
            **facts,
            "rounds": bench.rounds,
            "scale": bench.scale,
            "minutes": round((time.time() - began) / 60, 1),
        },
        "notes": bench.notes,
        "figures": bench.figures,
    }
    print(table(record))
    if path := arguments.json or (None if arguments.only else default):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def run(command: Command) -> str:
    """Run a command to its end and return what it printed; end this program if it failed."""
    done = subprocess.run(command[0], env=command[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[0])} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def started(
    side: Side, url: str, processes: int = 1
) -> Iterator[tuple[list[subprocess.Popen[bytes]], Callable[[], None]]]:
    """Start processes of a side and wait until they are ready; yield them, and the function that lets them go."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gate, errors = folder / "gate", stack.enter_context((folder / "errors").open("w+b"))
        os.mkfifo(gate)
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        command, environment = side.work(url)
        environment = {**environment, "BENCH_GATE": str(gate)}
        running: Workers = []
        stack.callback(_end, running)
        for _ in range(processes):
            running.append(
                subprocess.Popen(command, env=environment, cwd=HERE / "programs", stdout=writing, stderr=errors)
            )
        os.close(writing)
        if not _all_ready(reading, running, processes * side.ready):
            errors.seek(0)
            raise SystemExit(f"{side.name} did not start: {errors.read().decode(errors='replace')[-2000:]}")

        def let_go() -> None:
            stack.callback(os.close, os.open(gate, os.O_RDWR))  # held open, for those who come to it a moment later

        yield running, let_go


def _all_ready(pipe: int, running: Workers, count: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    said = b""
    while said.count(b"ready\n") < count:
        if select.select([pipe], [], [], 0.1)[0]:
            said += (part := os.read(pipe, 4096))
            if not part:
                return False
        elif time.monotonic() > deadline or any(process.poll() is not None for process in running):
            return False
    return True


def _end(running: Workers) -> None:
    for process in running:
        if process.returncode is None:
            process.kill()
            process.wait()


def memory_of(pid: int) -> float:
    """Return the most megabytes that a process and its children had; ru_maxrss would begin with those of the parent."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(found[1]) / 1024 if found else 0.0) + sum(memory_of(int(child)) for child in children)


def stop(process: subprocess.Popen[bytes]) -> Any:
    """Stop a process with SIGTERM, and return what it used."""
    process.send_signal(signal.SIGTERM)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


@attrs.define
class Watch:
    """Looks at the progress of a side: the lowest unfinished id, from `first` on, and when it was seen."""

    connection: psycopg.Connection
    pending: str
    first: int = 0
    seen: list[tuple[float, int]] = attrs.Factory(list)

    def until_done(self, deadline: float) -> bool:
        """Look until nothing is unfinished, or it is later than deadline by time.perf_counter()."""
        lowest = self.first
        began = time.perf_counter()
        while row := self.connection.execute(self.pending, [lowest] if "%s" in self.pending else None).fetchone():
            now = time.perf_counter()
            took = now - began
            if row[0] != lowest:
                lowest = row[0]
                self.seen.append((now, lowest))
            if now > deadline:
                return False
            time.sleep(max(0.02, 9 * took))  # a tenth of a core at most, where there is no index to look by
            began = time.perf_counter()
        return True


def drain(
    side: Side, url: str, jobs: int, *, processes: int = 1, first: int = 0, limit: float = 300.0
) -> dict[str, float]:
    """Let a side work on `jobs` jobs; return the figures of it. After `limit` seconds: of what was done by then."""
    return drained(side, url, jobs, processes=processes, first=first, limit=limit)[0]


def drained(
    side: Side, url: str, jobs: int, *, processes: int = 1, first: int = 0, limit: float = 300.0
) -> tuple[dict[str, float], list[tuple[float, int]]]:
    """As drain; return also when which lowest id was seen, in seconds since the start."""
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        watch = Watch(connection, side.pending, first)
        before = counters(connection)
        running, let_go = stack.enter_context(started(side, url, processes))
        let_go()
        began = time.perf_counter()
        done = watch.until_done(began + limit)
        seconds = time.perf_counter() - began
        count = jobs if done else jobs - _left(connection, side, first)
        memory = sum(memory_of(process.pid) for process in running)
        usage = [stop(process) for process in running]
        after = counters(connection)
    figures = {
        "jobs/s": count / seconds,
        "CPU us/job": sum(used.ru_utime + used.ru_stime for used in usage) / max(count, 1) * 1e6,
        "MB": memory,
        "WAL B/job": (after["wal"] - before["wal"]) / max(count, 1),
        "commits/job": (after["commits"] - before["commits"]) / max(count, 1),
        "deadlocks": after["deadlocks"] - before["deadlocks"],
    }
    return figures, [(at - began, lowest) for at, lowest in watch.seen]


def _left(connection: psycopg.Connection, side: Side, first: int) -> int:
    everything = side.pending.rpartition(" limit ")[0]
    query = f"select count(*) from ({everything}) as pending"
    return int((connection.execute(query, [first] if "%s" in query else None).fetchone() or (0,))[0])


def counters(connection: psycopg.Connection) -> dict[str, int]:
    """Return the server's counters for this database, when nobody else is connected: who leaves adds to them last."""
    others = (
        "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    deadline = time.monotonic() + 5
    while connection.execute(others).fetchone() is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    connection.execute("select pg_stat_clear_snapshot()")
    row = connection.execute(
        "select xact_commit, deadlocks, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
        " from pg_stat_database where datname = current_database()"
    ).fetchone()
    assert row is not None
    return {"commits": row[0], "deadlocks": row[1], "wal": int(row[2])}


def about(url: str) -> dict[str, Any]:
    """Return what has to be known beside figures: versions, durability, the machine."""
    with psycopg.connect(url) as connection:
        names = "server_version", *DURABLE, "shared_buffers", "max_wal_size", "jit", "autovacuum"
        server = {name: connection.execute(f"show {name}").fetchone()[0] for name in names}  # type: ignore[index]
    host = str(conninfo_to_dict(url).get("host", ""))
    return {
        "date": time.strftime("%Y-%m-%d"),
        "graphile-worker-py": __version__,
        "python": platform.python_version(),
        "psycopg": metadata.version("psycopg"),
        **{f"postgresql {name}" if name == "jit" else name: value for name, value in server.items()},
        "connection": "Unix socket" if host.startswith("/") else "TCP",
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
