"""One handler is interrupted and no other: every way in which an exception and the end of a job can meet."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from graphile_worker_py import JobCancelled, JobTimeout, _grip
from graphile_worker_py._grip import Grip, grip_here, shielded
from graphile_worker_py.jobs import Job


def job(number: int = 1) -> Job:
    return Job("work", None, number, None, "{}", 0, 0, 1, 25, None, 0, 0, None, 0, "pool", 0, None)


def turn(begun: threading.Event | None = None, *, seconds: float = 10.0) -> None:
    """Run bytecode for so long, as a handler that waits for nothing does."""
    if begun is not None:
        begun.set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.fixture
def grip() -> Iterator[Grip]:
    """Return the grip of this very thread."""
    grip = Grip()
    grip.bind()
    yield grip
    del _grip._here.grip


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Return what runs a function in another thread, which has ended when the test does."""
    threads: list[threading.Thread] = []

    def start(function: Callable[[], object]) -> threading.Thread:
        threads.append(threading.Thread(target=function))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_handler_is_interrupted_once(grip: Grip, elsewhere: Callable[..., threading.Thread]) -> None:
    told: list[bool] = []
    begun = threading.Event()
    mine = job()
    grip.take(mine, 0.0)
    elsewhere(lambda: begun.wait(30) and told.append(grip.interrupt(mine, JobTimeout)))
    with pytest.raises(JobTimeout):
        turn(begun)
    assert told == [True]
    assert not grip.interrupt(mine, JobCancelled)
    grip.let_go()
    turn(seconds=0.01)


def test_nothing_is_sent_for_a_job_that_is_over_or_not_the_one(grip: Grip) -> None:
    first, second = job(1), job(2)
    assert not grip.interrupt(first, JobTimeout)
    grip.take(first, 0.0)
    grip.let_go()
    assert not grip.interrupt(first, JobTimeout)
    grip.take(second, 0.0)
    assert not grip.interrupt(first, JobTimeout)
    turn(seconds=0.01)
    grip.let_go()


def test_a_thread_does_not_leave_its_job_while_an_exception_is_being_sent(
    grip: Grip, elsewhere: Callable[..., threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who interrupts is held up between taking the token and sending; it arrives in this job all the same."""
    about_to, go = threading.Event(), threading.Event()
    send = _grip._raise_in

    def slow(thread: int, error: object) -> None:
        if threading.get_ident() != thread:
            about_to.set()
            assert go.wait(30)
        send(thread, error)  # type: ignore[arg-type]

    monkeypatch.setattr(_grip, "_raise_in", slow)
    mine = job()
    grip.take(mine, 0.0)
    elsewhere(lambda: grip.interrupt(mine, JobTimeout))
    assert about_to.wait(30)
    timer = threading.Timer(0.05, go.set)
    timer.start()
    with pytest.raises(JobTimeout):
        grip.let_go()
    timer.join()
    grip.take(job(2), 0.0)
    turn(seconds=0.01)
    grip.let_go()


def test_one_that_has_not_arrived_when_the_job_ends_is_called_back(grip: Grip, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = job()
    calls: list[bool] = []
    send = _grip._raise_in

    def noted(thread: int, error: object) -> None:
        calls.append(bool(error))
        if not error:
            send(thread, error)  # type: ignore[arg-type]

    monkeypatch.setattr(_grip, "_raise_in", noted)
    grip.take(mine, 0.0)
    assert grip.interrupt(mine, JobTimeout)  # it never arrives
    grip.let_go()
    assert calls == [True, False]


def test_what_is_shielded_is_not_interrupted(grip: Grip, elsewhere: Callable[..., threading.Thread]) -> None:
    begun = threading.Event()
    mine = job()
    grip.take(mine, 0.0)
    with shielded:
        assert not grip.interrupt(mine, JobTimeout)
        with shielded:
            assert not grip.interrupt(mine, JobTimeout)
        assert not grip.interrupt(mine, JobTimeout)
    elsewhere(lambda: begun.wait(30) and grip.interrupt(mine, JobTimeout))
    with pytest.raises(JobTimeout):
        turn(begun)
    with shielded:  # none can come any more
        turn(seconds=0.01)
    grip.let_go()


def test_one_that_is_on_its_way_arrives_before_what_is_shielded(
    grip: Grip, elsewhere: Callable[..., threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    about_to, go = threading.Event(), threading.Event()
    send = _grip._raise_in

    def slow(thread: int, error: object) -> None:
        about_to.set()
        assert go.wait(30)
        send(thread, error)  # type: ignore[arg-type]

    monkeypatch.setattr(_grip, "_raise_in", slow)
    mine = job()
    grip.take(mine, 0.0)
    elsewhere(lambda: grip.interrupt(mine, JobTimeout))
    assert about_to.wait(30)
    timer = threading.Timer(0.05, go.set)
    timer.start()
    inside = False
    with pytest.raises(JobTimeout), shielded:
        inside = True
    assert not inside
    timer.join()
    monkeypatch.setattr(_grip, "_raise_in", send)
    grip.let_go()


def test_other_threads_have_no_grip_and_may_be_shielded() -> None:
    assert grip_here() is None
    with shielded:
        pass


@pytest.fixture
def often() -> Iterator[None]:
    """Let threads take turns five hundred times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.00001)
    yield
    sys.setswitchinterval(usual)


class Hazard:
    """A thread with thousands of short jobs, each of which may be interrupted at any moment around its end."""

    def __init__(self, seed: int) -> None:
        self.grip = Grip()
        self.hits = 0
        self.strays: list[BaseException] = []
        self._chance = random.Random(seed)  # noqa: S311 - no secret

    def work(self, until: float) -> None:
        self.grip.bind()
        number = 0
        try:
            while time.monotonic() < until:
                number += 1
                self._one(job(number))
                self._turn(100)  # between two jobs: here nothing may arrive
        except BaseException as error:
            self.strays.append(error)

    def _one(self, mine: Job) -> None:
        try:
            self.grip.take(mine, 0.0)
            try:
                self._turn(300)
                with shielded:
                    self._turn(20)
                self._turn(300)
            finally:
                self.grip.let_go()
        except JobCancelled:
            self.hits += 1
            if self.grip.reason(mine) is None:
                self.strays.append(AssertionError(f"job {mine.id} was not to end"))

    def _turn(self, most: int) -> None:
        for _ in range(self._chance.randrange(most)):
            pass


@pytest.mark.usefixtures("often")
def test_no_exception_reaches_another_job(elsewhere: Callable[..., threading.Thread]) -> None:
    hazards = [Hazard(seed) for seed in range(3)]
    over = threading.Event()
    ends = time.monotonic() + 2.0

    def interrupt() -> None:
        while not over.is_set():
            for grip in [hazard.grip for hazard in hazards]:
                if (mine := grip.job) is not None:
                    grip.demand = mine, JobCancelled("cancelled")
                    grip.interrupt(mine, JobCancelled)

    threads = [elsewhere(lambda hazard=hazard: hazard.work(ends)) for hazard in hazards]
    elsewhere(interrupt)
    for thread in threads:
        thread.join(60)
    over.set()
    assert [stray for hazard in hazards for stray in hazard.strays] == []
    assert sum(hazard.hits for hazard in hazards) > 100
