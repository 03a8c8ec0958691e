"""A scene is one drill under way: its server, its processes, the faults that were injected, the figures that came out.

A drill is a function that takes a Scene. It starts a fleet, does something to it within `fault`, settles (the producer
stops, what is owed gets done, the workers stop, the record is checked) and states figures with their limits.
"""

from __future__ import annotations

import itertools
import math
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import psycopg

from drills import invariants, rates
from drills.fleet import UNFINISHED, Program, Size
from drills.invariants import Fault, Life, Record
from drills.ledger import OWED, SCHEMA, Ledger
from drills.producer import RATE
from drills.servers import GLANCE, Server
from graphile_worker_py import quick_add_job

WARM_UP, SHORT_WARM_UP = 4.0, 1.5  # seconds at the usual rate before the first fault
LENIENT = 3.0  # by so much limits are wider in short: a rate over two seconds says little, and the machine may be busy
WORKERS = 2
MOST_SESSIONS = 6  # of a worker, as documented: without a crontab, and with handlers that tell no progress


class DrillFailed(Exception):
    """Something did not come about in time; the text says what."""


@attrs.frozen
class Figure:
    """A number that came out, and what it had to be; a quiet one goes without saying as long as it holds."""

    name: str
    value: float
    limit: str
    holds: bool
    quiet: bool = False


@attrs.frozen
class Stage:
    """What all drills of a run share: a server to copy, and the one with the ledgers."""

    folder: Path
    template: Server
    ledgers: Server


class Scene:
    """One drill under way. `short`: fewer rounds and shorter waits, for a glance at whether it works at all."""

    def __init__(self, name: str, stage: Stage, *, short: bool = False) -> None:
        self.name = name
        self.short = short
        self.warm_up = SHORT_WARM_UP if short else WARM_UP
        self.folder = stage.folder / name
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.stage = stage
        self.server = Server(self.folder / "main", template=stage.template)
        self.database = self.server.conninfo()
        self.faults: list[Fault] = []
        self.figures: list[Figure] = []
        self.workers: list[Program] = []
        self.producers: list[Program] = []
        self.silence = 50.0
        self.direct = True  # a session is its worker's, not a pooler's
        self.record = Record(adds=[], attempts=[])
        self._lives: dict[str, Life] = {}
        self._sizes: dict[str, Size] = {}
        self._options: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        stage.ledgers.execute(f'create database "{name}"', dbname="postgres")
        self._ledger_conninfo = stage.ledgers.conninfo(tcp=False, user="postgres", dbname=name)
        self.ledger = Ledger(self._ledger_conninfo, "drill")
        self.ledger.connection().execute(SCHEMA.encode(), prepare=False)
        self.begun_at = time.time()

    # Processes.

    def start(
        self,
        *,
        workers: int = WORKERS,
        producers: int = 1,
        queue: Mapping[str, Any] | None = None,
        wait: bool = True,
        **pool: Any,
    ) -> None:
        """Start the server, workers and producers, and wait until the rate is the usual one. `pool`: of WorkerPool."""
        self.silence = pool.get("dead_after", 60.0) - pool.get("heartbeat", 10.0)  # the last sign of life may be as old
        self._options = {"queue": dict(queue or {}), "pool": pool}
        if not self.server.accepts():
            self.server.start()
        for _ in range(workers):
            self.add_worker()
        for _ in range(producers):
            self.add_producer()
        if wait:
            self.wait_for_the_usual_rate()

    def wait_for_the_usual_rate(self) -> None:
        """Wait for the warm-up, and note how large the workers then are."""
        self.wait(
            lambda: self.ledger.number("select count(*) from attempts where result = 'done'") > RATE / 2, 30, "jobs"
        )
        time.sleep(self.warm_up)
        self._sizes = {worker.name: worker.size() for worker in self.workers if worker.is_running}

    def add_worker(
        self,
        *,
        database: str | None = None,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = ("-m", "drills.worker"),
        wait: bool = True,
        **pool: Any,
    ) -> Program:
        """Start a worker as `start` said, and wait until it takes jobs."""
        name = f"worker-{next(self._numbers)}"
        options = {**self._options, "pool": {**self._options.get("pool", {}), **pool}}
        given = {"database": self._named(database or self.database, name), "ledger": self._ledger_conninfo, **options}
        worker = Program(name, command, folder=self.folder, given=given, prefix=prefix, environment=environment)
        self.workers.append(worker)
        self._lives[name] = Life()
        if wait:
            self.wait_for_pools(worker)
        return worker

    def wait_for_pools(self, *workers: Program) -> None:
        """Wait until these workers take jobs."""
        query = "select count(*) from pools where worker = %s"
        for worker in workers:
            self.wait(lambda name=worker.name: self.ledger.number(query, [name]), 30, f"{worker.name} to start")

    def add_producer(self, database: str | None = None) -> Program:
        """Start a producer."""
        name = f"producer-{next(self._numbers)}"
        given = {"database": self._named(database or self.database, name), "ledger": self._ledger_conninfo}
        program = Program(name, ("-m", "drills.producer"), folder=self.folder, given=given)
        self.producers.append(program)
        return program

    def run(self, module: str, *, seconds: float, **given: Any) -> int:
        """Run a program of the drill's own to its end, and return its exit code; its name is that of its module."""
        name = module.rpartition(".")[2]
        access = {"database": self._named(self.database, name), "ledger": self._ledger_conninfo}
        program = Program(name, ("-m", module), folder=self.folder, given={**access, **given})
        self.producers.append(program)
        return program.wait(seconds)

    @staticmethod
    def _named(database: str, name: str) -> str:
        return psycopg.conninfo.make_conninfo(database, application_name=name)

    def kill(self, worker: Program) -> None:
        """End a worker as kill -9 does, and note when."""
        worker.kill()
        self._lives[worker.name].ended = time.time()

    def ended(self, worker: Program) -> int:
        """Wait for the end of a worker that was told to, note when, and return its exit code."""
        code = worker.wait()
        self._lives[worker.name].ended = worker.ended_at or time.time()
        self._lives[worker.name].released = code == UNFINISHED
        return code

    @contextmanager
    def silent(self, *workers: Program) -> Iterator[None]:
        """Note that workers cannot be heard during this block."""
        since = time.time()
        lives = [self._lives[worker.name] for worker in workers]
        for life in lives:
            life.silences.append((since, math.inf))
        try:
            yield
        finally:
            for life in lives:
                life.silences[-1] = (since, time.time())

    def sized(self, worker: Program) -> None:
        """Take the size of a worker that was started later as the one it may not outgrow."""
        self._sizes[worker.name] = worker.size()

    # What is done.

    @contextmanager
    def fault(
        self,
        kind: str,
        *hits: Program,
        repeats: bool = False,
        charges: bool = False,
        loses: bool = False,
    ) -> Iterator[Fault]:
        """Note that something is done during this block, to these workers or else to all, and what that excuses."""
        names = frozenset(worker.name for worker in hits) if hits else None
        fault = Fault(kind=kind, began=time.time(), hits=names, repeats=repeats, charges=charges, loses=loses)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            fault.ended = time.time()

    def rounds(self, number: int) -> range:
        """Return so many rounds, or two in short."""
        return range(2 if self.short else number)

    def lasting(self, seconds: float, short: float) -> float:
        """Return how long something lasts."""
        return short if self.short else seconds

    def watch(self, seconds: float) -> None:
        """Let the fleet work for a while."""
        time.sleep(seconds)

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> float:
        """Wait until something that can be observed has come true, and return after how long."""
        began = time.monotonic()
        while True:
            with suppress(psycopg.OperationalError):
                if condition():
                    return time.monotonic() - began
            if time.monotonic() - began > seconds:
                raise DrillFailed(f"waited {seconds:g} s for {what}, in vain")
            time.sleep(GLANCE)

    def wait_for_attempt(self, n: int) -> None:
        """Wait until a job was begun by somebody."""
        self.wait(
            lambda: self.ledger.number("select count(*) from attempts where n = %s", [n]), 10, "a job to be begun"
        )

    def hold(self, worker: Program, times: Sequence[float]) -> list[int]:
        """Add jobs that take such times on this worker until it runs one, and return those it runs."""
        added: list[int] = []
        query = "select distinct n from attempts where n = any (%s) and worker = %s"
        while not (held := [n for (n,) in self.ledger.rows(query, [added, worker.name])]):
            added.append(self.add({"ms": times, "on": worker.name}, priority=-1))
            self.wait_for_attempt(added[-1])
        return held

    def add(self, payload: Mapping[str, Any], **spec: Any) -> int:
        """Add one job of the drill's own, and return its number."""
        (n,) = self.ledger.intend([(spec.get("queue_name"), None, 0.0)])
        quick_add_job(self.server.conninfo(), "work", {"n": n, **payload}, **spec)
        self.ledger.settle([n], "committed")
        return n

    # What comes of it.

    def settle(self, *, seconds: float = 40.0, then: Callable[[], object] | None = None) -> None:
        """Stop the producers, let what is owed be done, stop the workers, and check that all is as it must be.

        `then` is called when all have stopped, before sessions are looked for.
        """
        for producer in self.producers:
            if producer.is_running:
                self.exactly(f"exit code of {producer.name}", producer.stop(), 0, quiet=True)
        self._drain(seconds)
        self._compare_sizes()
        for worker in self.workers:
            if worker.is_running:
                worker.signal(signal.SIGTERM)
        living = [worker for worker in self.workers if worker.ended_at is None]
        found = {worker.name: self.ended(worker) for worker in living}
        self.exactly("workers that ended with an exit code", sum(code != 0 for code in found.values()), 0, quiet=True)
        if then is not None:
            then()
        self._look_for_leftovers()
        self._read()

    def _drain(self, seconds: float) -> None:
        """Wait until nothing is owed and nothing left; what stays is told by the record."""
        query = "select count(*) from graphile_worker._private_jobs where attempts < max_attempts"

        def drained() -> bool:
            return not self.owed() and not self.server.execute(query)[0][0]

        with suppress(DrillFailed):
            self.wait(drained, self.lasting(seconds, max(seconds, 20)), "the last jobs")

    def owed(self) -> int:
        return int(self.ledger.number(OWED))

    def _compare_sizes(self) -> None:
        for worker in self.workers:
            before = self._sizes.get(worker.name)
            if before is not None and worker.is_running:
                after = worker.size()
                self.at_most(f"threads more in {worker.name}", after.threads - before.threads, 1, quiet=True)
                self.at_most(f"open files more in {worker.name}", after.files - before.files, 4, quiet=True)
                if self.direct:
                    self.at_most(f"sessions of {worker.name}", self.sessions(worker), MOST_SESSIONS, quiet=True)

    def sessions(self, worker: Program | None = None) -> int:
        """Return how many sessions the server has of a worker, or of all."""
        query = "select count(*) from pg_stat_activity where application_name like %s"
        return int(self.server.execute(query, [worker.name if worker else "worker-%"])[0][0])

    def _look_for_leftovers(self) -> None:
        with suppress(DrillFailed):
            self.wait(lambda: not self.sessions(), 5, "sessions to end")
        self.exactly("sessions left", self.sessions(), 0, quiet=True)
        jobs = (
            "select count(*) from graphile_worker._private_jobs where attempts < max_attempts or locked_at is not null"
        )
        queues = "select count(*) from graphile_worker._private_job_queues where locked_at is not null"
        self.exactly("jobs left", self.server.execute(jobs)[0][0], 0, quiet=True)
        self.exactly("queues left locked", self.server.execute(queues)[0][0], 0, quiet=True)

    def _read(self) -> None:
        self.record = Record(
            adds=self.ledger.adds(),
            attempts=self.ledger.attempts(),
            losses=self.ledger.losses(),
            faults=self.faults,
            lives=self._lives,
            silence=self.silence,
        )
        if not any(fault.loses for fault in self.faults):
            self.exactly("jobs lost", len(invariants.missing(self.record)), 0)
        self.state("jobs done again", len(invariants.repeats(self.record)))

    def done_times(self) -> list[float]:
        """Return when jobs were done, so far."""
        attempts = self.record.attempts or self.ledger.attempts()
        return sorted(a.ended for a in attempts if a.ended is not None and a.result == "done")

    def usual_rate(self) -> float:
        """Return the jobs a second before the first fault; not more than were offered, should some have waited."""
        first = min((fault.began for fault in self.faults), default=time.time())
        return min(RATE, self.rate(first - self.warm_up, first))

    def rate(self, begins: float, ends: float) -> float:
        """Return the jobs done a second in a span."""
        return rates.rate(self.done_times(), begins, ends)

    def longest_gap(self, begins: float, ends: float) -> float:
        """Return the longest time within a span in which no job was done."""
        return rates.longest_gap(self.done_times(), begins, ends)

    def share(self, begins: float, ends: float) -> float:
        """Return the rate in a span as a share of the usual one."""
        return self.rate(begins, ends) / self.usual_rate()

    def recovery(self, since: float) -> float:
        """Return after how many seconds the rate was back to 95 %, in short to two thirds."""
        return rates.recovery(self.done_times(), since, self.usual_rate() * (0.7 if self.short else 1))

    # Figures.

    def state(self, name: str, value: float) -> None:
        """State a number that has no limit."""
        self.figures.append(Figure(name, value, "", True))

    def exactly(self, name: str, value: float, limit: float, *, quiet: bool = False) -> None:
        """State a number that has to be another."""
        self.figures.append(Figure(name, value, f"= {limit:g}", value == limit, quiet))

    def at_most(self, name: str, value: float, limit: float, *, quiet: bool = False) -> None:
        """State a number that may not be larger."""
        limit *= LENIENT if self.short else 1
        self.figures.append(Figure(name, value, f"≤ {limit:g}", value <= limit, quiet))

    def at_least(self, name: str, value: float, limit: float) -> None:
        """State a number that may not be smaller."""
        limit /= LENIENT if self.short else 1
        self.figures.append(Figure(name, value, f"≥ {limit:g}", value >= limit))

    def close(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        for program in (*self.workers, *self.producers):
            with suppress(ProcessLookupError):
                program.process.kill()
            with suppress(subprocess.TimeoutExpired):
                program.process.wait(10)
        self.ledger.close()
        self.server.stop(signal.SIGQUIT)
