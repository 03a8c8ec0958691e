"""Pace, Stuck and Bounds by themselves, on a clock that stands still."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from graphile_worker_py import Job
from graphile_worker_py.jobs import EPOCH
from graphile_worker_py.worker import pace
from graphile_worker_py.worker.pace import Bounds, Pace, Stuck

NOON = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def job(minutes: float = 0, *, priority: int = 0, queued: bool = False) -> Job:
    """Return a claimed job whose run_at is so many minutes after noon."""
    run_at = (NOON + timedelta(minutes=minutes) - EPOCH) // timedelta(microseconds=1)
    named = ("task", "q" if queued else None, 1, 1 if queued else None)
    return Job(*named, "{}", priority, run_at, 1, 25, None, 0, 0, None, 0, "holder", 0, ())


# Pace


def test_what_was_not_worth_it_rests_twenty_times_as_long(clock: Clock) -> None:
    looks = Pace()
    assert looks.left() == 0
    looks.begin()
    looks.rest(0.1)
    assert looks.left() == pytest.approx(2)
    clock.now += 1.5
    assert looks.left() == pytest.approx(0.5)
    clock.now += 1
    assert looks.left() == 0


def test_what_is_asked_for_ends_a_rest_and_the_one_to_come(clock: Clock) -> None:
    looks = Pace()
    looks.begin()
    looks.rest(1)
    looks.ask()
    assert looks.left() == 0
    looks.begin()
    looks.ask()  # while it was under way: it may have come too early to see the news
    looks.rest(1)
    assert looks.left() == 0
    looks.begin()
    looks.rest(1)
    assert looks.left() == pytest.approx(20)


# Stuck


def test_stuck_queues_are_passed_over_for_a_second_all_together(clock: Clock) -> None:
    stuck = Stuck()
    assert (stuck.ids(), stuck.left()) == ([], None)
    stuck.add([1, 2])
    clock.now += 0.75
    stuck.add([3])
    assert sorted(stuck.ids()) == [1, 2, 3]
    assert stuck.left() == pytest.approx(0.25)
    clock.now += 0.25
    assert stuck.left() == 0
    assert (stuck.ids(), stuck.left()) == ([], None)


# Bounds

FAST, VERY_SLOW = 0.0001, 0.5


def slow(*jobs: Job, seconds: float = VERY_SLOW) -> Bounds:
    bounds = Bounds()
    bounds.learn(jobs, bounded=False, seconds=seconds)
    return bounds


def test_fast_claims_have_no_bounds(clock: Clock) -> None:
    bounds = slow(job(), seconds=FAST)
    assert bounds.lanes() is None
    assert Bounds().lanes() is None


def test_a_slow_claim_that_found_nothing_gives_no_bounds(clock: Clock) -> None:
    assert slow().lanes() is None


def test_slow_is_meant_per_job_found(clock: Clock) -> None:
    many = [job(minutes) for minutes in range(2000)]
    assert slow(*many, seconds=0.012).lanes() is None
    assert slow(job(), seconds=0.012).lanes() is not None


def test_the_next_claim_begins_where_a_slow_one_ended_in_each_priority(clock: Clock) -> None:
    bounds = slow(job(1, priority=5), job(2, priority=5), job(7, priority=-1), job(3, priority=2, queued=True))
    times = [NOON + timedelta(minutes=7), None, NOON + timedelta(minutes=2)]
    assert bounds.lanes() == ([-1, 2, 5], times)


def test_a_bounded_claim_moves_its_bounds_on(clock: Clock) -> None:
    bounds = slow(job(1))
    bounds.learn([job(2), job(3)], bounded=True, seconds=FAST)
    assert bounds.lanes() == ([0], [NOON + timedelta(minutes=3)])


@pytest.mark.parametrize(("seconds", "rest"), [(VERY_SLOW, 10.0), (0.01, 1.0)])
def test_a_claim_without_bounds_comes_again_and_again(clock: Clock, seconds: float, rest: float) -> None:
    bounds = slow(job(1), seconds=seconds)
    assert bounds.left() == pytest.approx(rest)
    clock.now += rest - 0.01
    assert bounds.lanes() is not None
    clock.now += 0.02
    assert bounds.lanes() is None
    bounds.learn([], bounded=False, seconds=FAST)
    clock.now += 0.1
    assert bounds.lanes() is None  # it was fast again


def test_late_jobs_move_no_bound_back_and_are_followed_by_another_look(clock: Clock) -> None:
    bounds = slow(job(10))
    clock.now += 60
    bounds.learn([job(1), job(2)], bounded=False, seconds=VERY_SLOW)
    assert bounds.lanes() is None
    bounds.learn([job(11)], bounded=False, seconds=VERY_SLOW)
    assert bounds.lanes() == ([0], [NOON + timedelta(minutes=11)])


def test_a_long_run_of_late_jobs_moves_the_bound_back(clock: Clock) -> None:
    bounds = slow(job(10))
    clock.now += 60
    for minutes in range(pace.LONG_RUN + 1):
        assert bounds.lanes() is None
        bounds.learn([job(minutes / 100)], bounded=False, seconds=VERY_SLOW)
    bounds.learn([job(1)], bounded=False, seconds=VERY_SLOW)
    assert bounds.lanes() == ([0], [NOON + timedelta(minutes=1)])


def test_an_error_forgets_that_claims_were_slow(clock: Clock) -> None:
    bounds = slow(job())
    bounds.forget()
    assert bounds.lanes() is None


def test_more_priorities_than_can_be_looked_at_one_by_one_have_no_bounds(clock: Clock) -> None:
    assert slow(*(job(priority=number) for number in range(pace.MOST_LANES + 1))).lanes() is None
