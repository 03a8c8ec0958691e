"""What several looks at a queue tell together, and which part of a table is read next; no database here."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from graphile_worker_py._looks import (
    Failure,
    Failures,
    Front,
    Pulse,
    Rates,
    Runs,
    TaskFigures,
    percentile,
    rates,
    task_figures,
)
from graphile_worker_py._walk import Budget, Count, Row, Walk

NOON = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def row(id: int, *, age: float | None = None, failed_at: int | None = None) -> Row:
    error = None if failed_at is None else "no"
    return Row("a", id, 1, 25, None if age is None else "w", age, error, failed_at)


# Differences of looks.

PULSE = Pulse(NOON, False, 1, 150000, 10, True, 1000, 500, 70)


def later(seconds: float, **changes: Any) -> Pulse:
    return attrs.evolve(PULSE, at=NOON + timedelta(seconds=seconds), **changes)


@pytest.mark.parametrize(
    ("pulses", "found"),
    [
        ([], Rates(None, None, 0)),
        ([PULSE], Rates(None, None, 0)),
        ([PULSE, later(5), later(10, added=1200, deleted=550)], Rates(20, 5, 10)),
        ([PULSE, later(2, added=None, deleted=504)], Rates(None, 2, 2)),
        ([PULSE, later(2, deleted=3, jobs=None)], Rates(0, None, 2)),  # the statistics were reset
        ([PULSE, later(2, started_at=2, deleted=900)], Rates(None, None, 0)),  # another server, or the same anew
        ([later(0, started_at=2), later(1, standby=True), PULSE, later(4, added=1008)], Rates(2, 0, 4)),
        (  # a standby: 100 came in, and there are 50 more
            [later(0, standby=True, deleted=None), later(10, standby=True, deleted=None, added=1100, jobs=120)],
            Rates(10, 5, 10),
        ),
        ([later(0, deleted=None), later(10, deleted=None, added=1100, jobs=None)], Rates(10, None, 10)),
        ([later(0, deleted=None), later(10, deleted=None, added=1000, jobs=80)], Rates(0, 0, 10)),
        ([PULSE, later(-1)], Rates(None, None, 0)),  # the clock of the server was set back
    ],
)
def test_rates_are_what_the_first_and_the_last_pulse_differ_by(pulses: list[Pulse], found: Rates) -> None:
    assert rates(pulses) == found


def test_percentiles_are_one_of_the_values() -> None:
    assert [percentile([], 0.5), percentile([3], 0.95), percentile([4, 1, 3, 2], 0.5)] == [None, 3, 2]
    assert percentile(range(1, 101), 0.95) == 95


def test_counts_of_pieces_are_put_together_by_task() -> None:
    counts = [
        Count("a", "ready", None, 3, 5.0, 0),
        Count("a", "ready", None, 4, 7.0, 0),
        Count("a", "running", "w", 2, 60.0, 0),
        Count(None, "failed", None, 1, -3.0, 1),
    ]
    rows = [row(1, age=60.0), row(2, age=10.0), row(3, failed_at=5)]
    nameless, a = task_figures(counts, rows, factor=2, front=None, runs={})
    assert nameless == TaskFigures("(no task)", failed=2)
    assert a == TaskFigures("a", ready=14, running=4, oldest_ready=7.0, longest_run=60.0, p50=10.0, p95=60.0)

    few = task_figures(counts, rows[:1], factor=1, front=None, runs={})
    assert (few[1].p50, few[1].p95) == (None, None), "one of two running jobs tells nothing about both"

    runs = {"a": Runs(1.5, 0.1, 0.2), "b": Runs(0.0, 3.0, 4.0)}
    front = Front({"a": 5, "c": 1}, True, 9.0)
    by_name = {task.task: task for task in task_figures(counts, rows, factor=1, front=front, runs=runs)}
    assert [(name, task.ready, task.runs) for name, task in by_name.items()] == [
        ("(no task)", 0, None),
        ("a", 5, 1.5),
        ("b", 0, 0.0),
        ("c", 1, None),
    ]
    (capped, *_) = task_figures(counts[:2], [], factor=1, front=attrs.evolve(front, complete=False), runs={})
    assert capped.ready == 7, "the beginning of a long queue is no news of its length"


def test_an_error_is_told_once_and_those_of_before_come_last() -> None:
    failures = Failures(most=3)

    def failure(id: int, second: int | None, attempt: int = 1) -> Failure:
        at = None if second is None else NOON + timedelta(seconds=second)
        return Failure(at, id, "a", attempt, False, "no")

    for one in [failure(1, None), failure(2, 20), failure(2, 99), failure(2, 40, 2), failure(3, 30)]:
        failures.note(one)
    assert [(one.job_id, one.attempt) for one in failures.latest()] == [(2, 2), (3, 1), (2, 1)]
    failures.forget([row(1, failed_at=1)])
    failures.note(failure(1, 70))
    assert len(failures.latest()) == 3, "it is there still, and no news"
    failures.note_exactly(failure(1, 50))  # by the history
    assert [one.job_id for one in failures.latest()] == [1, 2, 3]
    failures.forget([])
    failures.note(failure(2, 60))
    assert failures.latest()[0] == failure(2, 60), "it was there, was gone, and is there again"


# What to read next.


def test_a_budget_is_a_share_of_the_time() -> None:
    clock = Clock()
    budget = Budget(0.05, grant=0.1, most=0.5, clock=clock)
    budget.spend(0.2)
    assert (round(budget.left, 9), round(budget.pause, 9)) == (-0.1, 2.0)
    clock.now += 4
    budget.accrue()
    assert (round(budget.left, 9), budget.pause) == (0.1, 0)
    clock.now += 3600
    budget.accrue()
    assert budget.left == 0.5
    budget.spend(3600)
    assert budget.pause == 10


def test_a_walk_reads_all_pieces_and_then_the_oldest_again() -> None:
    clock = Clock()
    walk = Walk(100, clock=clock)
    walk.begin(1001)
    read = []
    while walk.share < 1:
        number = walk.next()
        assert number is not None
        walk.enter(number, [Count("a", "ready", None, 1, 5.0, 0)], [row(number, age=1.0)])
        read.append(number)
        clock.now += 1
    assert sorted(read) == list(range(11))
    assert max(read[:4]) - min(read[:4]) > 5, "the first ones are spread over the table"
    assert walk.next() is None, "each was read since the look began"
    walk.begin(1001)
    assert (walk.next(), walk.age) == (read[0], 11)
    assert walk.counts() == [Count("a", "ready", None, 11, 16.0, 0)], "who waits, goes on waiting"
    assert max(one.age or 0 for one in walk.rows()) == 12
    walk.begin(150)
    assert {one.id for one in walk.rows()} == {0, 1}
    walk.begin(250)
    assert (walk.next(), round(walk.share, 3)) == (2, 0.667)
    assert walk.bounds(0) == {"first": "(0,0)", "beyond": "(100,0)"}
    assert walk.bounds(2) == {"first": "(200,0)", "beyond": "(4294967294,0)"}, "pages may be added at any time"
    walk.begin(100 * 512 + 1)
    assert walk.share == 0, "in pieces of twice the size"
    assert walk.bounds(1) == {"first": "(200,0)", "beyond": "(400,0)"}
    assert Walk(None, clock=clock).bounds(0) == {"first": "(0,0)", "beyond": "(4294967294,0)"}


def test_only_what_failed_since_is_news() -> None:
    walk = Walk(None, clock=Clock())
    rows = [row(1, failed_at=10), row(2, failed_at=20), row(3, age=4.0)]
    assert walk.news(0, rows, most=2) == set()
    walk.enter(0, [], rows)
    assert walk.news(0, [*rows, row(4, failed_at=30), row(5, failed_at=5)], most=2) == {2, 4}, "5 was there, unseen"
    assert walk.news(0, [row(5, failed_at=5)], most=3) == {5}
    guessed = attrs.evolve(row(6, failed_at=5), guessed=True)
    assert walk.news(0, [guessed], most=2) == {6}, "these have an order of their own"
