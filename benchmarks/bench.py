"""Measure throughput, adding and latency beside Node's worker and bare SQL, and print one table: `make bench`.

Parts: throughput, defaults, one command, history, adding, adding one by one, latency, idle, commands; with --peers
those too.
"""

from __future__ import annotations

import argparse

import adding
import latency
import peers
import throughput
from measuring import HERE, Bench, main
from sides import node_is_missing, node_version


def measure(bench: Bench, arguments: argparse.Namespace) -> None:
    """Measure every part that is wanted."""
    if missing := node_is_missing():
        bench.notes["Node's worker"] = f"Not measured: {missing}"
    else:
        bench.facts["node"] = node_version()
    for part in (throughput, adding, latency):
        part.measure(bench, with_node=not missing)
    if arguments.peers:
        peers.measure(bench)


if __name__ == "__main__":
    main(
        str(__doc__),
        HERE / "results" / "bench.json",
        measure,
        parts=(*throughput.PARTS, *adding.PARTS, *latency.PARTS, "peers"),
        rounds=5,
        options={"peers": "Measure the peers from PyPI too."},
    )
