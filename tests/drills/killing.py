"""Drills in which worker processes die, freeze, fork, or lose their sense of time."""

from __future__ import annotations

import math
import signal
import time
from itertools import pairwise

from drills.catalogue import drill
from drills.invariants import Record
from drills.scene import Scene

QUICK = {"heartbeat": 1.0, "dead_after": 6.0}  # the ordinary 10 and 60 seconds, by a tenth
QUICKEST = {"heartbeat": 0.3, "dead_after": 1.5}  # for the short form
FIRST_DELAY = 2.72  # seconds: e to the power of one
ENDLESS = 3_600_000  # milliseconds
SLACK = 5.0  # seconds from the moment at which a job could be begun again


def longest_orphan(record: Record) -> float:
    """Return the longest time from the death of a holder until the job it was running began again.

    Those that were claimed by a second one that died, and those that failed before, wait longer by right.
    """
    return max(
        (
            second.began - record.lives[first.worker].ended
            for attempts in record.by_job().values()
            for first, second in pairwise(attempts)
            if first.result is None and (first.number, second.number) == (1, 2)
        ),
        default=math.inf,
    )


@drill(
    "kill-worker",
    "`kill -9` of one of two workers, 20 times (heartbeat 1 s, dead after 6 s)",
    "orphans restarted within dead_after + heartbeat + the first delay + 5 s; the survivor keeps ≥ 95 %",
)
def kill_worker(scene: Scene) -> None:
    beats = QUICKEST if scene.short else QUICK
    scene.start(**beats)
    shares = []
    for _ in scene.rounds(20):
        worker = scene.workers[-1]  # the other has to live for as long as it takes to be a judge of others
        if scene.short:
            scene.hold(worker, [ENDLESS, 20])
        with scene.fault("kill -9", worker, repeats=True, charges=True):
            scene.kill(worker)
        killed_at = time.time()
        scene.watch(1)
        shares.append((killed_at, time.time()))
        scene.add_worker()
        scene.watch(1)
    scene.settle()
    share = sum(scene.share(*span) for span in shares) / len(shares)
    scene.at_least("rate of the survivor, share of the usual", share, 0.95)
    allowed = beats["dead_after"] + beats["heartbeat"] + FIRST_DELAY + SLACK
    scene.at_most("longest wait of an orphan (s)", longest_orphan(scene.record), allowed)
    scene.state("orphans", sum(attempt.result is None for attempt in scene.record.attempts))


@drill(
    "kill-worker-default",
    "`kill -9` of one of two workers, with the ordinary heartbeat (10 s, dead after 60 s)",
    "orphans restarted ≤ 75 s; the survivor keeps ≥ 95 %",
)
def kill_worker_default(scene: Scene) -> None:
    scene.start()
    worker = scene.workers[0]
    scene.hold(worker, [ENDLESS, 20])
    with scene.fault("kill -9", worker, repeats=True, charges=True):
        scene.kill(worker)
    killed_at = time.time()
    scene.watch(scene.lasting(70, 10))
    watched_until = time.time()
    scene.settle(seconds=80)
    scene.at_least("rate of the survivor, share of the usual", scene.share(killed_at, watched_until), 0.95)
    scene.at_most("longest wait of an orphan (s)", longest_orphan(scene.record), 75)


@drill(
    "kill-all",
    "`kill -9` of the whole fleet and of the producer, then all started anew, 4 times (dead after 6 s)",
    "nothing lost, orphans restarted",
)
def kill_all(scene: Scene) -> None:
    scene.start(**QUICK)
    for _ in scene.rounds(4):
        scene.hold(scene.workers[-1], [ENDLESS, 20])
        with scene.fault("kill -9 of all", repeats=True, charges=True):
            scene.producers[-1].kill()
            for worker in [worker for worker in scene.workers if worker.is_running]:
                scene.kill(worker)
        scene.watch(1)
        scene.add_worker()
        scene.add_worker()
        scene.add_producer()
        scene.watch(scene.lasting(15, 10))  # nobody judges others who has not lived for as long as that takes
    scene.settle()
    allowed = 1 + QUICK["dead_after"] + QUICK["heartbeat"] + FIRST_DELAY + SLACK
    scene.at_most("longest wait of an orphan (s)", longest_orphan(scene.record), allowed)


@drill(
    "frozen",
    "SIGSTOP of one of two workers for 90 s, then SIGCONT",
    "others took over; the thawed one writes nothing, begins nothing it had, and goes on",
)
def frozen(scene: Scene) -> None:
    options = QUICK if scene.short else {}
    dead_after, stopped = (6.0, 12.0) if scene.short else (60.0, 90.0)
    scene.start(workers=1, **options)
    (worker,) = scene.workers
    # Begun before, done at once when thawed; then it still runs on the other worker, which must find its row.
    held = [scene.add({"ms": [2_000, (stopped - dead_after) * 1000 + 15_000]}) for _ in range(3)]
    query = "select count(*) from attempts where n = any (%s)"
    scene.wait(lambda: scene.ledger.number(query, [held]) == len(held), 10, "jobs to be begun")
    with scene.silent(worker), scene.fault("SIGSTOP", worker, repeats=True, charges=True):
        worker.signal(signal.SIGSTOP)
        scene.add_worker()
        scene.wait(lambda: scene.ledger.number(query, [held]) == 2 * len(held), stopped, "another to take over")
        frozen_since = scene.faults[-1].began
        scene.state("taken over after (s)", time.time() - frozen_since)
        scene.watch(max(0.0, frozen_since + stopped - time.time()))
        worker.signal(signal.SIGCONT)
    scene.watch(scene.lasting(15, 5))
    scene.settle()
    late = {loss.n for loss in scene.record.losses if loss.worker == worker.name}
    scene.exactly("late outcomes that changed nothing", len(late & set(held)), len(held))
    later = [a for a in scene.record.attempts if a.worker == worker.name and a.began > scene.faults[0].ended]
    scene.at_least("jobs that the thawed one did afterwards", len(later), 1)
