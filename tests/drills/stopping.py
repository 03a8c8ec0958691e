"""Drills in which workers are told to stop: the real command line, under load."""

from __future__ import annotations

import signal
import time

from drills.catalogue import drill
from drills.fleet import THREADS, UNFINISHED, Program
from drills.killing import ENDLESS
from drills.scene import Scene

GRACE = 2.0  # seconds
SLACK = 1.0  # beyond the grace


def command(grace: float) -> tuple[str, ...]:
    """Return the arguments of Python that start the daemon."""
    options = ("-c", str(THREADS), "--grace", str(grace))
    return ("-m", "graphile_worker_py", "run", "drills.worker:queue", *options)


def locked_by(scene: Scene, worker: Program) -> int:
    """Return how many jobs and named queues carry the name of a worker's pool."""
    holders = [holder for (holder,) in scene.ledger.rows("select holder from pools where worker = %s", [worker.name])]
    query = (
        "select (select count(*) from graphile_worker._private_jobs where locked_by = any (%s))"
        " + (select count(*) from graphile_worker._private_job_queues where locked_by = any (%s))"
    )
    return int(scene.server.execute(query, [holders, holders])[0][0])


def stop_in_turn(scene: Scene, rounds: int, *, grace: float, signals: int = 1, stuck: bool = False) -> None:
    """Start a worker beside one that goes on, stop it under load, and look at how it ends and what it leaves."""
    scene.start(workers=1)
    longest, wrong, locked = 0.0, 0, 0
    for _ in scene.rounds(rounds):
        worker = scene.add_worker(command=command(grace))
        if stuck:
            scene.hold(worker, [ENDLESS, 20])
        scene.watch(0.5)
        with scene.fault("SIGTERM", worker, repeats=signals > 1):
            told_at = time.monotonic()
            for _ in range(signals):
                worker.signal(signal.SIGTERM)
                time.sleep(0.2 if signals > 1 else 0)
            code = scene.ended(worker)
            longest = max(longest, time.monotonic() - told_at)
        wrong += code != (UNFINISHED if stuck else 0)
        locked += locked_by(scene, worker)
    scene.settle()
    scene.exactly("wrong exit codes", wrong, 0)
    scene.exactly("jobs and queues left locked by the stopped", locked, 0)
    scene.at_most("longest stop (s)", longest, (grace if signals == 1 else 0.2 * signals) + SLACK)
    scene.at_least("rate while one stops, share of the usual", scene.share(*span(scene)), 0.95)


def span(scene: Scene) -> tuple[float, float]:
    return scene.faults[0].began, scene.faults[-1].ended


@drill(
    "sigterm",
    "SIGTERM to one of two workers under load, with a grace of 2 s, 50 times",
    "exit 0 within the grace + 1 s, nothing done twice, no row left locked",
)
def sigterm(scene: Scene) -> None:
    stop_in_turn(scene, 50, grace=GRACE)


@drill(
    "sigterm-stuck",
    "SIGTERM to a worker whose handler never returns, with a grace of 2 s, 50 times",
    "exit 75 within the grace + 1 s each time; the job is given back with its attempt and done elsewhere",
)
def sigterm_stuck(scene: Scene) -> None:
    stop_in_turn(scene, 50, grace=GRACE, stuck=True)


@drill(
    "sigterm-twice",
    "a second SIGTERM to a worker whose handler never returns, with a grace of 30 s, 50 times",
    "exit 75 at once, never hangs; jobs are given back with their attempts; only what ran just then is done again",
)
def sigterm_twice(scene: Scene) -> None:
    stop_in_turn(scene, 50, grace=30.0, signals=2, stuck=True)
