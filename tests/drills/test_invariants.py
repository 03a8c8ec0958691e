"""The checks of the drills find what they are for: each is shown a record in which one thing is wrong."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from drills import invariants
from drills.invariants import Fault, Life, Record
from drills.ledger import Add, Attempt, Loss

VANISHED = "worker vanished: pool-1 was silent"


def done(n: int, began: float, ended: float | None = None, **more: object) -> Attempt:
    return Attempt(n=n, began=began, ended=began + 0.02 if ended is None else ended, result="done", **more)


def unfinished(n: int, began: float, **more: object) -> Attempt:
    return Attempt(n=n, began=began, **more)


def fine() -> Record:
    """A record of a drill in which a worker was killed at 10 and another was silent from 20 to 120, and all is well."""
    return Record(
        adds=[
            Add(n=1),
            Add(n=2, queue="q"),
            Add(n=3, queue="q"),
            Add(n=4, due_in=0.5, intended_at=1.0, settled_at=1.1),
            Add(n=5, replaces=4, settled_at=1.2),
            Add(n=6, outcome="rolled back"),
            Add(n=7, outcome="unknown", settled_at=None),
            Add(n=8),
            Add(n=9),
            Add(n=10, queue="q"),
            Add(n=11),
            Add(n=12),
            Add(n=13, queue="r"),
            Add(n=14, queue="r"),
        ],
        attempts=[
            done(1, 1.0),
            done(2, 1.0),
            done(3, 1.1),
            done(5, 1.2),
            Attempt(n=8, began=2.0, ended=2.1, result="failed"),
            done(8, 5.0, number=2, last_error="drills.worker.Refused: 8"),
            unfinished(9, 9.9, worker="killed"),
            done(11, 9.0, 9.5, worker="killed"),
            done(9, 73.0, number=2, last_error=VANISHED),
            done(11, 73.0, number=2, last_error=VANISHED),
            done(10, 19.5, 121.0, worker="silent"),
            done(10, 85.0, 130.0, number=2, last_error=VANISHED),
            done(12, 90.0, number=2, last_error=VANISHED),
            done(12, 120.1, worker="silent"),  # taken before the silence, the handler called after it
            done(13, 91.0, number=2, last_error=VANISHED),
            done(14, 119.9, 120.5),
            done(13, 120.2, worker="silent"),  # the same, while its queue has gone on
        ],
        losses=[Loss(n=10, worker="silent", at=121.1)],
        faults=[
            Fault(kind="kill -9", began=10.0, ended=10.0, hits=frozenset({"killed"}), repeats=True, charges=True),
            Fault(kind="stop", began=20.0, ended=120.0, hits=frozenset({"silent"}), repeats=True, charges=True),
        ],
        lives={"killed": Life(ended=10.0), "silent": Life(silences=[(20.0, 120.0)]), "worker-1": Life(ended=200.0)},
    )


def test_a_record_in_which_all_is_well_has_no_violations() -> None:
    assert invariants.violations(fine()) == []


def without(record: Record, n: int) -> None:
    record.attempts[:] = [attempt for attempt in record.attempts if attempt.n != n]


def lose_a_job(record: Record) -> None:
    without(record, 1)


def lose_a_job_that_only_began(record: Record) -> None:
    without(record, 1)
    record.attempts.append(unfinished(1, 1.0))


def lose_the_job_that_replaced_another(record: Record) -> None:
    without(record, 5)


def lose_a_job_after_its_failure(record: Record) -> None:
    record.attempts[:] = [attempt for attempt in record.attempts if (attempt.n, attempt.number) != (8, 2)]


def run_what_was_rolled_back(record: Record) -> None:
    record.attempts.append(done(6, 3.0))


def run_what_nobody_added(record: Record) -> None:
    record.attempts.append(done(77, 3.0))


def run_what_was_replaced(record: Record) -> None:
    record.attempts.append(done(4, 1.6))


def run_twice_at_a_time(record: Record) -> None:
    without(record, 9)
    record.attempts += [done(9, 9.8, 9.99), done(9, 9.9, worker="worker-2")]
    record.faults[0].hits = None


def run_twice_before_the_silence_was_long_enough(record: Record) -> None:
    change(record, lambda a: a.began == 85.0, began=69.0)


def run_beside_one_that_leaves_its_handlers(record: Record) -> None:
    without(record, 9)
    record.lives["leaving"] = Life(ended=40.0, released=True)
    record.attempts += [unfinished(9, 30.0, worker="leaving"), done(9, 38.5)]


def repeat_without_a_fault(record: Record) -> None:
    record.attempts.append(done(1, 4.0))


def repeat_on_a_fault_that_hit_another(record: Record) -> None:
    record.attempts += [done(1, 9.9), done(1, 10.5)]
    record.attempts.remove(done(1, 1.0))


def repeat_what_was_done_long_before_the_fault(record: Record) -> None:
    change(record, lambda a: a.n == 11 and a.number == 1, began=8.0, ended=8.9)


def repeat_what_began_after_the_fault(record: Record) -> None:
    change(record, lambda a: a.n == 11 and a.number == 1, began=10.1, ended=10.2)


def run_beside_the_next_of_its_queue(record: Record) -> None:
    record.attempts.remove(done(13, 91.0, number=2, last_error=VANISHED))


def repeat_what_was_claimed_after_the_silence(record: Record) -> None:
    change(record, lambda a: a.n == 12 and a.number == 1, number=3, last_error=VANISHED)


def repeat_long_after_the_silence(record: Record) -> None:
    change(record, lambda a: a.n == 12 and a.number == 1, began=121.5, ended=121.6)


def overlap_in_a_queue(record: Record) -> None:
    change(record, lambda a: a.n == 3, began=1.01)


def overlap_in_a_queue_with_the_one_before_the_last(record: Record) -> None:
    change(record, lambda a: a.n == 2, ended=19.6)


def overtake_in_a_queue(record: Record) -> None:
    change(record, lambda a: a.n == 2, began=1.2, ended=1.3)


def charge_an_attempt(record: Record) -> None:
    change(record, lambda a: a.n == 1, number=2, last_error=VANISHED)


def charge_too_many_attempts(record: Record) -> None:
    change(record, lambda a: a.n == 9 and a.number == 2, number=4)


def charge_no_attempt(record: Record) -> None:
    change(record, lambda a: a.n == 8 and a.number == 2, number=1)


def forget_the_error(record: Record) -> None:
    change(record, lambda a: a.n == 8 and a.number == 2, last_error=None)


def blame_the_wrong_thing(record: Record) -> None:
    change(record, lambda a: a.n == 9 and a.number == 2, last_error="drills.worker.Refused: 9")


def lose_an_outcome_while_alive(record: Record) -> None:
    record.losses.append(Loss(n=1, worker="worker-1", at=1.1))


def lose_an_outcome_before_the_silence(record: Record) -> None:
    record.losses.append(Loss(n=10, worker="silent", at=19.9))


def change(record: Record, which: Callable[[Attempt], bool], **values: object) -> None:
    assert sum(map(which, record.attempts)) == 1
    record.attempts[:] = [attrs.evolve(a, **values) if which(a) else a for a in record.attempts]


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (lose_a_job, "job 1 is lost"),
        (lose_a_job_that_only_began, "job 1 is lost"),
        (lose_the_job_that_replaced_another, "job 5 is lost"),
        (lose_a_job_after_its_failure, "job 8 is lost"),
        (run_what_was_rolled_back, "job 6 ran on"),
        (run_what_nobody_added, "job 77 ran on"),
        (run_what_was_replaced, "job 4 ran, though 5 had replaced it"),
        (run_twice_at_a_time, "job 9 began on worker-2"),
        (run_twice_before_the_silence_was_long_enough, "job 10 began on worker-1"),
        (run_beside_one_that_leaves_its_handlers, "job 9 began on worker-1"),
        (repeat_without_a_fault, "job 1 was done by"),
        (repeat_on_a_fault_that_hit_another, "job 1 was done by"),
        (repeat_what_was_done_long_before_the_fault, "job 11 was done by"),
        (repeat_what_began_after_the_fault, "job 11 was done by"),
        (repeat_what_was_claimed_after_the_silence, "job 12 was done by"),
        (repeat_long_after_the_silence, "job 12 was done by"),
        (overlap_in_a_queue, "queue 'q': job 3 began"),
        (overlap_in_a_queue_with_the_one_before_the_last, "queue 'q': job 10 began"),
        (run_beside_the_next_of_its_queue, "queue 'r': job 13 began"),
        (overtake_in_a_queue, "queue 'q': job 2 began after 3"),
        (charge_an_attempt, "job 1: attempt 2"),
        (charge_too_many_attempts, "job 9: attempt 4"),
        (charge_no_attempt, "job 8: attempt 1"),
        (forget_the_error, "job 8: attempt 2 has last_error None"),
        (blame_the_wrong_thing, "job 9: attempt 2 has last_error"),
        (lose_an_outcome_while_alive, "job 1: somebody else"),
        (lose_an_outcome_before_the_silence, "job 10: somebody else"),
    ],
)
def test_a_violation_is_found(plant: Callable[[Record], None], found: str) -> None:
    record = fine()
    plant(record)
    assert any(problem.startswith(found) for problem in invariants.violations(record)), invariants.violations(record)


def test_an_asynchronous_standby_excuses_the_window_it_lagged_and_no_more() -> None:
    record = fine()
    record.faults.append(Fault(kind="failover", began=3.0, ended=5.0, loses=True))
    record.adds += [Add(n=20, settled_at=4.0), Add(n=21, settled_at=5.5)]
    assert [problem.split(":")[0] for problem in invariants.violations(record)] == ["job 21 is lost"]


def test_a_load_that_lacks_what_is_to_be_proven_is_found() -> None:
    assert invariants.vacuous(fine()) == []
    assert len(invariants.vacuous(Record(adds=[], attempts=[]))) == 5
    record = fine()
    record.adds[5] = attrs.evolve(record.adds[5], outcome="committed")
    assert invariants.vacuous(record) == ["there was no job that was rolled back"]


def test_many_violations_of_a_kind_are_summed_up() -> None:
    record = Record(adds=[Add(n=n) for n in range(1, 101)], attempts=[])
    told = invariants.violations(record)
    assert len(told) == invariants.SHOWN + 1
    assert told[-1] == f"... and {100 - invariants.SHOWN} more of this kind"
