"""Monitor: what a live view shows of a queue, look by look, at next to no cost to the server.

Everything is read only, in transactions that PostgreSQL holds to that, so a standby will do, and so will a role that
may only read: where the table itself may not be read, the view `jobs` is. Of the server's time a twentieth is used at
most, by its own clock: every statement tells what it cost, jobs are counted in pieces (see _walk.py), and a look that
costs more comes later.

Where the figures come from:

- Jobs by state: counted. Of a table too large to be read within a look they are as old as `counts_age` says. Ready ones
  are then counted anew each time along the index, if there are fewer than 10,000, and so is the age of the oldest.
- The rate in: the sequence that ids come from, which a job that replaces another by its key moves as well. The rate
  out: PostgreSQL's count of deleted rows, a second late; a standby has none, where what came in and is not there has
  gone out, if all jobs are counted each time.
- Runs by task: from the history, where workers keep one; there is no other trace of a job that is done. Else only how
  long the running jobs have been running.
- Errors: each that is new in a piece of the table when that is read again (of one whose job was tried again meanwhile
  nothing remains), and those of the history.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime, timedelta
from typing import Any

import attrs
import psycopg

from graphile_worker_py import _looks as looks
from graphile_worker_py._database import Database
from graphile_worker_py._database import Row as Columns
from graphile_worker_py._walk import PIECE, Budget, Count, Row, Walk
from graphile_worker_py.errors import NotSupported, SchemaMissing
from graphile_worker_py.jobs import moment

SHARE = 0.05  # of the server's time
PATIENCE = 1.0  # seconds for a statement
CAP = 10_000  # ready jobs that are counted along the index
LANES = 100  # priorities whose ready jobs are
WINDOW = 10.0  # seconds that rates of all jobs are over
RUNS, RUNS_WINDOW = 5_000, 60.0  # runs of the history that are looked at, and seconds that rates of them are over
SMALL = 0.001  # seconds that a statement is taken to cost that does not tell
RUNNING, FAILING = 500, 20  # rows of a piece of the table that are looked at
POOLS = 1_000
ERRORS = 200
AGAIN = 300.0  # seconds until what was not there is asked for again: each time the server logs an error

LATE = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
PAGES_BY_NUMBER = 140_000  # since this version a table can be read by the numbers of its pages

# How to count, and how to find rows of interest.
TABLE = "look_tally", "look_rows"
VIEW = "look_tally_of_view", "look_rows_of_view"


class Monitor:
    """Looks at the queue of a database, again and again, in one thread.

    `grant`: seconds of the server's time that may be spent at the start; `pages`: how many of the table make a piece.
    """

    def __init__(self, database: Database, *, grant: float = 0.3, pages: int = PIECE) -> None:
        self._database = database
        self._pages = pages
        self._budget = Budget(SHARE, grant=grant)
        self._mode: tuple[tuple[str, str], int | None] = TABLE, pages
        self._walk = Walk(pages)
        self._piece_cost = 0.01  # seconds, of the last one
        self._pulses: deque[looks.Pulse] = deque()
        self._failures = looks.Failures(most=ERRORS)
        self._absent: dict[str, tuple[float, str]] = {}  # statement: until when, and why
        self._notes: list[str] = []
        self._cost = 0.0  # of this look, in seconds
        self.pause = 0.0  # seconds until the next look, at least

    def look(self) -> looks.Snapshot:
        """Return what there is now. Raises SchemaMissing, NotSupported, and psycopg's errors: look again later."""
        self._budget.accrue()
        self._notes.clear()
        self._cost = 0.0
        pulse = self._pulse()
        pools, runs = self._pools(), self._runs()
        self._failed_runs()
        before = self._cost
        self._count(pulse)
        counting = self._cost - before
        front = None
        if pulse.readable and not self._is_current():
            front = self._front()
        self.pause = 1.25 * (self._cost - counting) / SHARE  # which leaves a fifth for counting
        return self._snapshot(pulse, front, pools=pools, runs=runs)

    def _ask(self, name: str, **parameters: Any) -> list[Columns]:
        """Run a statement, and return its rows without the last column, which says what it cost."""
        limits = {"milliseconds": str(round(PATIENCE * 1000))}
        cost = SMALL
        try:
            rows = self._database.begin_by_index(name, parameters, after=("look_limits", limits))().fetchall()
            cost = rows[-1][-1] if rows else SMALL
        except psycopg.errors.QueryCanceled:  # who waits for a lock is no work for the server
            cost = PATIENCE
            raise
        finally:
            self._budget.spend(cost)
            self._cost += cost
        return [row[:-1] for row in rows]

    def _if_there(self, name: str, what: str, **parameters: Any) -> list[Columns]:
        """Run a statement whose table may be missing, or be kept from this role; no rows where it is so."""
        until, why = self._absent.get(name, (0.0, ""))
        if time.monotonic() < until:
            self._notes.append(why)
            return []
        try:
            return self._ask(name, **parameters)
        except SchemaMissing:
            why = f"no {what} here: run migrate"
        except NotSupported:
            why = f"no {what}: this role may not read that"
        except LATE:
            self._notes.append(f"no {what}: no answer within {PATIENCE:g} s")
            return []
        self._absent[name] = (time.monotonic() + AGAIN, why)
        self._notes.append(why)
        return []

    def _pulse(self) -> looks.Pulse:
        rows = self._ask("look_pulse", schema=self._database.schema)
        if not rows:
            self._ask("look_tally_of_view")  # says what is missing
            raise SchemaMissing(f"schema {self._database.schema!r} has a view jobs, and no table _private_jobs")
        ((at, *more),) = rows
        return looks.Pulse(moment(at), *more)

    def _pools(self) -> list[looks.Worker]:
        return [looks.Worker(*row) for row in self._if_there("look_pools", "worker pools", limit=POOLS)]

    def _runs(self) -> dict[str, looks.Runs]:
        rows = self._if_there("look_runs", "history", limit=RUNS, window=RUNS_WINDOW)
        return {
            task: looks.Runs(ended / min(RUNS_WINDOW, reach or RUNS_WINDOW), p50, p95)
            for task, ended, p50, p95, reach in rows
        }

    def _failed_runs(self) -> None:
        for task, id, attempt, outcome, at, error in self._if_there(
            "look_failed_runs", "history", reach=RUNS, limit=FAILING
        ):
            self._failures.note_exactly(looks.Failure(moment(at), id, task, attempt, outcome == "failed", error))

    def _count(self, pulse: looks.Pulse) -> None:
        """Count as many pieces of the table as there is time for."""
        by_number = self._pages if pulse.readable and pulse.version >= PAGES_BY_NUMBER else None
        mode = TABLE if pulse.readable else VIEW, by_number
        if mode != self._mode:
            self._mode, self._walk = mode, Walk(by_number)
        self._walk.begin(pulse.pages)
        while self._budget.left >= self._piece_cost and (number := self._walk.next()) is not None:
            before = self._cost
            try:
                self._read(number, pulse.at)
            except LATE:
                self._notes.append(f"counting stopped: no answer within {PATIENCE:g} s")
                return
            finally:
                self._piece_cost = max(0.001, self._cost - before)

    def _read(self, number: int, at: datetime) -> None:
        (tally, of_interest), where = self._mode[0], self._walk.bounds(number)
        counts = [Count(*row) for row in self._ask(tally, **where)]
        rows: list[Row] = []
        if any(count.state == "running" or count.errors for count in counts):
            rows = [Row(*row) for row in self._ask(of_interest, **where, running=RUNNING, failing=FAILING)]
        news = self._walk.news(number, rows, most=FAILING)
        for row in rows:
            if row.error is not None:
                final, task = row.attempt >= row.max_attempts, row.task or looks.NAMELESS
                seen_at = at if row.id in news else None
                self._failures.note(looks.Failure(seen_at, row.id, task, row.attempt, final, row.error))
        self._walk.enter(number, counts, rows)

    def _is_current(self) -> bool:
        """Say whether all of the table was counted in this look."""
        return self._walk.share == 1 and self._walk.age == 0

    def _front(self) -> looks.Front | None:
        try:
            (_, lanes, oldest), *ready = self._ask("look_front", cap=CAP, lanes=LANES)
        except LATE:
            self._notes.append(f"ready jobs are not counted: no answer within {PATIENCE:g} s")
            return None
        jobs = {task or looks.NAMELESS: count for task, count, _ in ready}
        return looks.Front(jobs, complete=sum(jobs.values()) < CAP and lanes < LANES, oldest=oldest)

    def _rates(self, pulse: looks.Pulse, jobs: int) -> looks.Rates:
        """Return the rates of the last seconds, of which this pulse is the end."""
        self._pulses.append(attrs.evolve(pulse, jobs=jobs) if self._is_current() else pulse)
        begins = pulse.at - timedelta(seconds=WINDOW)
        while len(self._pulses) > 2 and self._pulses[1].at <= begins:
            self._pulses.popleft()
        return looks.rates(self._pulses)

    def _snapshot(
        self, pulse: looks.Pulse, front: looks.Front | None, *, pools: list[looks.Worker], runs: dict[str, looks.Runs]
    ) -> looks.Snapshot:
        walk = self._walk
        factor = 1 / (walk.share or 1)
        counts, rows = list(walk.counts()), list(walk.rows())
        self._failures.forget(rows)
        tasks = looks.task_figures(counts, rows, factor=factor, front=front, runs=runs)
        oldest = front.oldest if front else max((task.oldest_ready or 0 for task in tasks), default=0) or None
        return looks.Snapshot(
            at=pulse.at,
            standby=pulse.standby,
            read=walk.share,
            counts_age=walk.age,
            ready_counted=self._is_current() or (front is not None and front.complete),
            oldest_ready=oldest,
            rates=self._rates(pulse, sum(count.jobs for count in counts)),
            history=bool(runs),
            tasks=tasks,
            workers=looks.with_load(pools, counts, factor=factor),
            running=looks.running_jobs(rows),
            errors=self._failures.latest(),
            notes=tuple(dict.fromkeys(self._notes)),
            cost=self._cost,
        )
