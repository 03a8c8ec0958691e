"""Drills in which the database goes away, as a whole or session by session."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import time
from pathlib import Path

from drills.catalogue import drill
from drills.scene import DrillFailed, Scene

RECONNECTED = 5.0  # seconds after the port accepts
BACK = 10.0
THERE_AGAIN = "reconnected ≤ 5 s after the port accepts, ≥ 95 % of the rate ≤ 10 s, no process ends"
NEVER = 60.0  # seconds: stated for what did not come about


def reconnections(scene: Scene, since: float) -> float:
    """Return after how many seconds all workers had a session again; what takes too long is told as it is."""
    try:
        scene.wait(lambda: all(scene.sessions(worker) for worker in scene.workers), NEVER, "workers to reconnect")
    except DrillFailed:
        return NEVER
    return time.time() - since


def outage(scene: Scene, *, rounds: int, how: signal.Signals) -> None:
    """Take the server away and bring it back, and measure how fast the workers are there again."""
    scene.start()
    slowest, accepted = 0.0, []
    for _ in scene.rounds(rounds):
        with scene.fault(how.name):
            scene.server.stop(how)
            scene.watch(scene.lasting(1, 0.2))
            scene.server.start()
        accepted.append(time.time())
        slowest = max(slowest, reconnections(scene, accepted[-1]))
        scene.watch(scene.lasting(5, 2.1))
    scene.watch(scene.lasting(5, 2))
    there_again(scene, slowest, accepted)


def there_again(scene: Scene, slowest: float, accepted: list[float]) -> None:
    """State that all workers lived, and were at work soon after the port accepted connections, each of these times."""
    scene.exactly("workers that ended", sum(not worker.is_running for worker in scene.workers), 0)
    scene.settle()
    scene.at_most("longest until reconnected (s)", slowest, RECONNECTED)
    scene.at_most("longest until 95 % (s)", max(map(scene.recovery, accepted)), BACK)


@drill(
    "restart-fast",
    "PostgreSQL restarted (fast), 10 times",
    THERE_AGAIN,
)
def restart_fast(scene: Scene) -> None:
    outage(scene, rounds=10, how=signal.SIGINT)


@drill(
    "restart-immediate",
    "PostgreSQL restarted (immediate), 10 times",
    THERE_AGAIN,
)
def restart_immediate(scene: Scene) -> None:
    outage(scene, rounds=10, how=signal.SIGQUIT)


@drill(
    "kill-postmaster",
    "`kill -9` of the postmaster, then started anew, 5 times",
    THERE_AGAIN,
)
def kill_postmaster(scene: Scene) -> None:
    outage(scene, rounds=5, how=signal.SIGKILL)


@drill(
    "kill-backend",
    "`kill -9` of a backend of ours, 5 times: PostgreSQL ends all sessions and recovers",
    THERE_AGAIN,
)
def kill_backend(scene: Scene) -> None:
    scene.start()
    query = "select min(pid) from pg_stat_activity where application_name like 'worker-%'"
    slowest, accepted = 0.0, []
    for _ in scene.rounds(5):
        ((pid,),) = scene.server.execute(query)
        with scene.fault("kill -9 of a backend"):
            os.kill(pid, signal.SIGKILL)
            scene.wait(lambda gone=pid: not Path(f"/proc/{gone}").exists(), 10, "a backend to end")
            scene.server.wait_until_ready()
        accepted.append(time.time())
        slowest = max(slowest, reconnections(scene, accepted[-1]))
        scene.watch(5)
    scene.watch(5)
    there_again(scene, slowest, accepted)


@drill(
    "away",
    "PostgreSQL away for 5 minutes",
    "all alive, < 5 % of a core, a log line a second at most, back ≤ 35 s after the port accepts",
)
def away(scene: Scene) -> None:
    scene.start()
    with scene.fault("away"):
        scene.server.stop(signal.SIGINT)
        scene.watch(2)
        cpu, lines, since = usage(scene), log_lines(scene), time.monotonic()
        scene.watch(scene.lasting(296, 10))
        seconds = time.monotonic() - since
        used, said = usage(scene) - cpu, log_lines(scene) - lines
        alive = sum(worker.is_running for worker in scene.workers)
        scene.server.start()
    back = time.time()
    scene.watch(scene.lasting(40, 20))
    scene.exactly("workers alive", alive, len(scene.workers))
    scene.settle()
    scene.at_most("processor used by each worker (% of a core)", 100 * used / seconds / alive, 5)
    scene.at_most("log lines a second of each worker", said / seconds / alive, 1)
    scene.at_most("until 95 % (s)", scene.recovery(back), 35)


def usage(scene: Scene) -> float:
    return sum(worker.cpu() for worker in scene.workers)


def log_lines(scene: Scene) -> int:
    """Return how many entries the workers have logged; the lines of a traceback belong to one entry."""
    return sum(len(re.findall(r"^\d{4}-\d\d-\d\d ", worker.log(), re.M)) for worker in scene.workers)


@drill(
    "storm",
    "pg_terminate_backend and pg_cancel_backend on sessions of ours, 5 a second for 60 s",
    "≥ 60 % of the rate during, 95 % ≤ 5 s after, nothing done twice",
)
def storm(scene: Scene) -> None:
    scene.start()
    query = "select pid from pg_stat_activity where application_name like 'worker-%'"
    blows = itertools.cycle(["select pg_terminate_backend(%s)", "select pg_cancel_backend(%s)"])
    with scene.fault("storm") as fault:
        until = time.monotonic() + scene.lasting(60, 5)
        while time.monotonic() < until:
            pids = [pid for (pid,) in scene.server.execute(query)]
            if pids:
                scene.server.execute(next(blows), [random.choice(pids)])  # noqa: S311 - no secret
            scene.watch(0.2)
    scene.watch(scene.lasting(10, 6))
    scene.settle()
    scene.at_least("rate during, share of the usual", scene.share(fault.began, fault.ended), 0.6)
    scene.at_most("until 95 % (s)", scene.recovery(fault.ended), 5)
