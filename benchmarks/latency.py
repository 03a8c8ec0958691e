"""From the commit of an add to the start of its handler, on an idle worker: ours beside Node's, in turn; and idleness.

Both sides are told the time by one clock: the adding process writes time.time() into the payload just before the commit
returns, and the handler sends its own time back over a file.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg
from sides import about, database, installed, loaded, node, node_is_there

from graphile_worker_py import Queue
from graphile_worker_py.embedded import EmbeddedPostgres

HERE = Path(__file__).parent


def serve(url: str, path: str) -> None:
    """Work as the side that is ours: write the time at which each handler starts."""
    queue = Queue(url)
    with Path(path).open("a", buffering=1) as log:
        queue.task("stamp")(lambda payload: log.write(f"{time.time()} {payload}\n"))
        print("go", flush=True)
        queue.run_worker(24)


def measure(url: str, side: str, samples: int) -> list[float]:
    """Return the sorted latencies of one side, in milliseconds."""
    with tempfile.NamedTemporaryFile("r") as log:
        if side == "ours":
            command, environment = [sys.executable, __file__, url, "--serve", log.name], dict(os.environ)
        else:
            command = [node.binary(node.NEWEST), str(installed("latency.mjs")), log.name]
            environment = node.environment(node.NEWEST, url)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        with Queue(url) as queue:
            time.sleep(1)
            added = []
            for number in range(samples):
                queue.add_job("stamp", number)
                added.append(time.time())
                time.sleep(0.005)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()
        started = {int(number): float(at) for at, number in (line.split() for line in log.read().splitlines())}
        return sorted((started[number] - added[number]) * 1000 for number in range(samples))


def idle(url: str, seconds: float = 20.0) -> dict[str, float]:
    """Return what an idle worker of 24 threads takes: share of a core, statements a second, MB, connections."""
    with tempfile.NamedTemporaryFile() as log, psycopg.connect(url, autocommit=True) as connection:
        command = [sys.executable, __file__, url, "--serve", log.name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(3)
        ours = "datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        before = _ticks(process.pid), _transactions(connection)
        time.sleep(seconds)
        after = _ticks(process.pid), _transactions(connection)
        (connections,) = connection.execute(f"select count(*) from pg_stat_activity where {ours}").fetchone() or (0,)
        memory = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()
    return {
        "share of a core": (after[0] - before[0]) / os.sysconf("SC_CLK_TCK") / seconds,
        "transactions a second": (after[1] - before[1]) / seconds,
        "MB": memory,
        "connections": connections,
    }


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _transactions(connection: psycopg.Connection) -> int:
    connection.execute("select pg_stat_clear_snapshot()")
    query = "select xact_commit from pg_stat_database where datname = current_database()"
    return int((connection.execute(query).fetchone() or (0,))[0])


def main() -> None:
    """Measure in turn, and print medians and the 99th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", metavar="LOG")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.url, arguments.serve)
        return
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedPostgres(settings={"fsync": "on"})).url
        template = stack.enter_context(loaded(url, lambda target: None))
        print(about(url))
        figures: dict[str, list[tuple[float, float]]] = {"ours": [], **({"node": []} if node_is_there() else {})}
        for _ in range(arguments.rounds):
            for side, found in figures.items():
                with database(url, template) as target:
                    times = measure(target, side, arguments.samples)
                    found.append((times[len(times) // 2], times[len(times) * 99 // 100]))
        for side, found in figures.items():
            p50, p99 = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"{side:6} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")
        with database(url, template) as target:
            print("idle:", ", ".join(f"{name} {value:.3f}" for name, value in idle(target).items()))


if __name__ == "__main__":
    main()
