"""Drills on what the worker's machine does to it: a clock that jumps, a process that forks."""

from __future__ import annotations

import re
import time

from drills.catalogue import drill
from drills.faketime import clean_up_after, libfaketime
from drills.killing import ENDLESS, FIRST_DELAY, QUICK, SLACK, longest_orphan
from drills.scene import Scene

HOUR, DAY = 3600, 86_400  # seconds


@drill(
    "clock",
    "the clocks of the workers jump to +1 h, -1 h, +1 day, -1 day and back under load (libfaketime); one is killed",
    "order, leases and recovery as ever: nobody is taken for dead, the killed one's jobs restart in time, ≥ 95 %",
)
def clock(scene: Scene) -> None:
    told = scene.folder / "clock"
    told.write_text("+0")
    lies = {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(told),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    scene.start(workers=0, producers=0, wait=False, **QUICK)
    workers = [scene.add_worker(environment=lies) for _ in range(2)]
    scene.add_producer()
    scene.wait_for_the_usual_rate()
    with scene.fault("clock") as fault:
        for offset in (HOUR, -HOUR, DAY, -DAY, 0):
            told.write_text(f"{offset:+d}")
            scene.watch(scene.lasting(12, 3))
    told.write_text(f"{HOUR:+d}")
    scene.hold(workers[0], [ENDLESS, 20])
    with scene.fault("kill -9", workers[0], repeats=True, charges=True):
        scene.kill(workers[0])
    scene.add_worker(environment=lies)
    scene.watch(scene.lasting(15, 5))
    scene.settle()
    clean_up_after(scene.workers)
    jumped = {line[:10] for line in workers[1].log().splitlines() if re.match(r"\d{4}-\d\d-\d\d ", line)}
    scene.at_least("dates in the log of one worker", len(jumped), 3)
    scene.at_least("rate during, share of the usual", scene.share(fault.began, fault.ended), 0.95)
    allowed = QUICK["dead_after"] + QUICK["heartbeat"] + FIRST_DELAY + SLACK
    scene.at_most("longest wait of an orphan (s)", longest_orphan(scene.record), allowed)


@drill(
    "forks",
    "a process that has used its queue forks 1,000 times, by os.fork and by multiprocessing; all of them add jobs",
    "every child has a session of its own; no error of the protocol in the server's log; all jobs done",
)
def forks(scene: Scene) -> None:
    scene.start()
    children = 40 if scene.short else 1000
    with scene.fault("forks"):
        began = time.monotonic()
        code = scene.run("drills.forking", seconds=300, children=children)
        scene.state("seconds for each fork", (time.monotonic() - began) / children)
    scene.settle()
    scene.exactly("children that failed, or shared a session", code, 0)
    broken = re.findall(r"protocol|unexpected message|invalid frontend|lost synchronization", scene.server.log())
    scene.exactly("errors of the protocol", len(broken), 0)
