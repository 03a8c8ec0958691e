"""Drain no-op jobs: ours beside Node's worker and a bare loop of SQL; at the defaults, by one command, with a history.

"fresh" is straight after the bulk load: the hard case, for the table has no statistics yet, and the real one.
"analysed" is after VACUUM ANALYZE.
"""

from __future__ import annotations

import psycopg
from measuring import JOBS, Bench, Side, drain, run
from sides import loop, nodes, ours

PARTS = ("throughput", "defaults", "one command", "history")


def measure(bench: Bench, *, with_node: bool) -> None:
    """Measure every side of every case, turn and turn about."""
    fast = [ours(), *([nodes()] if with_node else []), loop()]
    slow = [ours(None), *([nodes(1, tuned=False)] if with_node else [])]
    pair = [ours(supervised=2), ours()]
    kept = [ours(history=True), ours()]
    for number in bench.turns():
        for state in ("fresh", "analysed") if bench.wanted("throughput") else ():
            for processes in (1, 2):
                case = f"{state}, {'one process' if processes == 1 else 'two processes'}"
                for side in fast:
                    one(bench, "throughput", case, side, processes=processes, analysed=state == "analysed")
        for side in slow if bench.wanted("defaults") else ():
            one(bench, "defaults", "fresh, one process", side, jobs=20_000)
        for side in pair if bench.wanted("one command") and number < 3 else ():
            one(bench, "one command", "fresh, two processes", side, processes=1 if side.ready == 2 else 2)
        for side in kept if bench.wanted("history") and number < 3 else ():
            one(bench, "history", "fresh, one process", side)


def one(
    bench: Bench, part: str, case: str, side: Side, *, jobs: int = 200_000, processes: int = 1, analysed: bool = False
) -> None:
    """Measure one side once, on a database of its own."""
    count = bench.size(jobs)
    with bench.database() as url:
        run(side.produce(url, count))
        if analysed:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"vacuum (analyze) {JOBS}")
        figures = drain(side, url, count, processes=processes)
    figures.pop("deadlocks")
    bench.add(part, case, side.name, figures)
