"""A task moves from Node to Python, step by step as docs/beside-node.md says, while jobs for it keep coming."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plain_sql import connect, eventually

from graphile_worker_py import Queue, WorkerPool
from interop import node
from interop.host import NodeWorker

pytestmark = [pytest.mark.usefixtures("packages"), pytest.mark.direction("a task moves from Node to us")]

SAFE = {"preset": {"worker": {"completeJobBatchDelay": 0, "failJobBatchDelay": 0}}}


@pytest.mark.parametrize("version", node.LIVING)
def test_with_no_pause_and_each_job_once(
    version: str,
    migrated_url: str,
    queue: Queue,
    pools: Callable[..., WorkerPool],
    node_worker: Callable[..., NodeWorker],
) -> None:
    by_node: list[int] = []
    by_python: list[int] = []
    added = 0

    def add(jobs: int) -> None:
        nonlocal added
        worker.add_jobs([{"identifier": "greet", "payload": f"({{n: {added + n}}})"} for n in range(jobs)])
        added += jobs

    def none_left() -> bool:
        return not db.execute("select from graphile_worker._private_jobs limit 1").fetchall()

    with node_worker(version, migrated_url) as worker, connect(migrated_url) as db:
        worker.run({"greet": "tell(payload.n)", "stay": "tell(payload)"}, **SAFE)
        add(20)
        by_node += [worker.told() for _ in range(20)]

        queue.task("greet")(lambda payload: by_python.append(payload["n"]))
        pools(2, poll_interval=0.1)
        while not by_python:  # both have the task now
            add(20)
            eventually(none_left)
        add(50)
        worker.stop()
        add(20)
        eventually(none_left)  # while Node's worker is away

        worker.run({"stay": "tell(payload)"}, **SAFE)
        worker.add_job("stay", "'other'")
        add(20)
        eventually(none_left)
        told = [worker.told() for _ in range(added - len(by_python) - len(by_node) + 1)]
        assert "other" in told
        by_node += [n for n in told if n != "other"]
        assert sorted([*by_node, *by_python]) == list(range(added))
        assert {*range(added - 40, added)} <= {*by_python}
