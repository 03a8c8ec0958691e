"""Gates by themselves: what is open, what is passed over, and how many jobs a claim may bring; no database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from graphile_worker_py import Job, Limit, Rate, Task
from graphile_worker_py.worker import gates
from graphile_worker_py.worker.gates import Gates, Seen

MANY = 100
MINUTE = timedelta(minutes=1)


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gates, "time", clock)
    monkeypatch.setattr(gates, "SPREAD", 0.0)
    return clock


def gates_of(**tasks: dict[str, Any]) -> Gates:
    return Gates({name: Task(lambda payload: None, name, **options) for name, options in tasks.items()})


def jobs(identifier: str, *ids: int) -> list[Job]:
    columns = ("{}", 0, 0, 1, 25, None, 0, 0, None, 0, "holder", 0, ())
    return [Job(identifier, None, id, None, *columns) for id in ids]


def under(jobs: list[Job], *names: str) -> dict[int, list[str]]:
    return {job.id: list(names) for job in jobs}


def test_a_task_with_all_its_handlers_at_work_is_not_claimed() -> None:
    known = gates_of(a={"concurrency": 2}, b={"concurrency": 1})
    assert (known.open(), known.most(MANY)) == (["a", "b"], 3)
    running = jobs("a", 1, 2)
    known.enter(running, under(running))
    assert (known.open(), known.most(MANY)) == (["b"], 1)
    assert known.passing(jobs("a", 3), {3: []}) == []
    assert known.leave(running[:1])
    assert not known.leave(running[:1])
    assert not known.leave(running[1:])
    assert known.open() == ["a", "b"]


def test_no_more_is_claimed_than_has_become_free_as_long_as_more_wait_in_front() -> None:
    known = gates_of(a={"concurrency": 1}, b={"limit": Limit(1, key=lambda payload: payload)})
    (first,) = running = jobs("a", 1)
    known.enter(running, under(running))
    assert known.most(MANY) == gates.FIRST_CLAIM
    known.leave([first])
    assert known.most(MANY) == 1
    other = jobs("b", 2)
    known.most(MANY)
    known.brought(other, under(other, "limit:x"), refused=0, full=True)
    assert known.most(MANY) == gates.FIRST_CLAIM


def test_claims_are_small_after_one_that_brought_too_many_and_grow_again() -> None:
    known = gates_of(a={"limit": Limit(1, key=lambda payload: payload)})
    eight = jobs("a", *range(8))
    known.brought(eight, under(eight, "limit:x"), refused=0, full=True)
    assert known.most(MANY) == 16
    known.brought(eight, under(eight, "limit:x"), refused=7, full=True)
    assert known.most(MANY) == 1
    known.brought(eight[:1], under(eight[:1], "limit:x"), refused=0, full=True)
    assert known.most(MANY) == 2
    known.brought(eight[:1], under(eight[:1], "limit:x"), refused=1, full=True)
    assert known.most(MANY) == 1


def test_a_claim_brings_no_more_than_the_gate_has_room_for(clock: Clock) -> None:
    known = gates_of(a={"concurrency": 2}, b={"concurrency": 5})
    brought = jobs("a", 1, 2, 3)
    assert known.passing(brought, under(brought)) == brought[:2]


def test_a_full_limit_is_closed_until_a_job_leaves_it_or_it_is_time_to_look(clock: Clock) -> None:
    known = gates_of(a={"limit": Limit(2)}, b={"limit": Limit(2, key=lambda payload: payload)})
    running = jobs("a", 1)
    known.enter(running, under(running, "limit:a"))
    known.see({"limit:a": Seen(0, None), "limit:x": Seen(-1, None)}, {"limit:a": (2, None), "limit:x": (2, None)})
    assert (known.open(), known.flags(), known.due_in()) == (["b"], ["limit:a", "limit:x"], gates.LOOK_AFTER)
    waiting = jobs("b", 5, 6)
    assert known.passing(waiting, {5: ["limit:x"], 6: ["limit:y"]}) == waiting[1:]
    assert known.leave(running)
    assert (known.open(), known.flags(), known.most(MANY)) == (["a", "b"], ["limit:x"], 1)
    assert known.due() == {}
    clock.now += gates.LOOK_AFTER
    assert (known.due(), known.due_in()) == ({"limit:x": (2, None)}, 0)
    known.see({"limit:x": Seen(2, None)}, known.due())
    assert (known.flags(), known.most(MANY)) == ([], 3)


def test_a_rate_is_closed_for_as_long_as_the_database_says(clock: Clock) -> None:
    known = gates_of(a={"rate": Rate(2, per=MINUTE)})
    begun = jobs("a", 1, 2)
    known.enter(begun, under(begun, "rate:a"))
    known.see({"rate:a": Seen(0, 12.5)}, {"rate:a": (2, 60.0)})
    assert not known.leave(begun)
    assert (known.open(), known.due_in()) == ([], 12.5)
    clock.now += 13
    known.see({"rate:a": Seen(1, None)}, known.due())
    assert (known.open(), known.most(MANY)) == (["a"], 1)


def test_what_leaves_while_the_database_is_asked_is_looked_for_at_once(clock: Clock) -> None:
    known = gates_of(a={"limit": Limit(1)})
    running = jobs("a", 1)
    known.enter(running, under(running, "limit:a"))
    known.begin()
    known.leave(running)
    known.see({"limit:a": Seen(0, None)}, {"limit:a": (1, None)})
    assert known.due_in() == 0


def test_a_job_that_was_taken_from_the_pool_and_claimed_anew_counts_once() -> None:
    known = gates_of(a={"concurrency": 2})
    old, new = jobs("a", 1, 1)
    for job in (old, new):
        known.enter([job], {1: []})
    assert known.most(MANY) == 1
    assert not known.leave([old])
    known.leave([new])
    assert known.most(MANY) == 2


def test_what_was_opened_while_a_claim_was_under_way_is_not_forgotten_with_it() -> None:
    known = gates_of(a={"concurrency": 1}, b={"concurrency": 10})
    (first,) = running = jobs("a", 1)
    known.enter(running, under(running))
    known.most(MANY)
    known.leave([first])
    known.brought([], {}, refused=0, full=False)
    assert known.most(MANY) == 1
    known.brought([], {}, refused=0, full=False)
    assert known.most(MANY) == gates.FIRST_CLAIM
