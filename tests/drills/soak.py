"""The long drill: half an hour of faults at random, and a worker that lives through all of them."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from drills.catalogue import drill
from drills.fleet import Program
from drills.killing import QUICK
from drills.scene import Scene

SETTLED = 300.0  # seconds after which memory is taken as the usual
GROWTH = 5.0  # percent
STOPPED = 10.0  # seconds, longer than dead_after

Blow = Callable[[Scene, Program], None]


def kill(scene: Scene, victim: Program) -> None:
    with scene.fault("kill -9", victim, repeats=True, charges=True):
        scene.kill(victim)
    scene.add_worker()


def stop(scene: Scene, victim: Program) -> None:
    with scene.fault("SIGTERM", victim):
        victim.signal(signal.SIGTERM)
        scene.exactly("exit code of one that was stopped", scene.ended(victim), 0, quiet=True)
    scene.add_worker()


def freeze(scene: Scene, victim: Program) -> None:
    with scene.silent(victim), scene.fault("SIGSTOP", victim, repeats=True, charges=True):
        victim.signal(signal.SIGSTOP)
        scene.watch(STOPPED)
        victim.signal(signal.SIGCONT)


def restart(scene: Scene, victim: Program) -> None:
    with scene.fault("restart, fast"):
        scene.server.restart(signal.SIGINT)


def crash(scene: Scene, victim: Program) -> None:
    with scene.fault("restart, immediate"):
        scene.server.restart(signal.SIGQUIT)


def cut_off(scene: Scene, victim: Program) -> None:
    kick = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'worker-%'"
    with scene.fault("all sessions ended"):
        scene.server.execute(kick)


def lock(scene: Scene, victim: Program) -> None:
    with scene.fault("LOCK TABLE"):
        scene.server.execute("do $$begin lock table graphile_worker._private_jobs; perform pg_sleep(3); end$$")


BLOWS: tuple[Blow, ...] = (kill, stop, freeze, restart, crash, cut_off, lock)


@drill(
    "soak",
    "30 minutes of these, at random: kill -9, SIGTERM, SIGSTOP, restarts, sessions ended, LOCK TABLE",
    "all of the above; the memory of the worker that lives through it grows ≤ 5 % after the first 5 minutes",
)
def soak(scene: Scene) -> None:
    scene.start(**QUICK)
    veteran, *_ = scene.workers
    seed = random.randrange(10_000)  # noqa: S311 - no secret
    scene.state("seed", seed)
    chance = random.Random(seed)  # noqa: S311
    settled = scene.lasting(SETTLED, 15)
    began, usual = time.monotonic(), 0
    blows: list[Blow] = []
    while (lasted := time.monotonic() - began) < scene.lasting(1800, 45):
        if not usual and lasted > settled:
            usual = veteran.size().memory
        if not blows:
            blows = chance.sample(BLOWS, len(BLOWS))
        victim = next(worker for worker in scene.workers if worker.is_running and worker is not veteran)
        blows.pop()(scene, victim)
        scene.watch(chance.uniform(1, 4) if scene.short else chance.uniform(5, 20))
    grown = 100 * (veteran.size().memory / usual - 1)
    scene.exactly("the veteran lives", veteran.is_running, 1)
    scene.settle()
    scene.state("faults", len(scene.faults))
    if scene.short:
        scene.state("memory grown (%)", grown)
    else:
        scene.at_most("memory grown (%)", grown, GROWTH)
