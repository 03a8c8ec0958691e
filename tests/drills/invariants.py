"""What must hold whatever was done to the fleet, checked on the record of a drill. Pure: records in, sentences out.

A fault says whom it hit and what it excuses: that what was in flight is done again (`repeats`), that an attempt is
spent without a handler's failure (`charges`), that the database lost what was committed (`loses`). Nothing else is
excused. A worker that was silent (stopped, or cut off) for as long as its pool may be, has lost its jobs by right; and
a thread that had taken a job when its process was stopped, but not called the handler yet, does so when it goes on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

import attrs

from drills.ledger import Add, Attempt, Loss

IN_FLIGHT = 1.0  # seconds from the effect of an attempt until its outcome is written, at most
PRELUDE = 0.1  # seconds from the note that a process is stopped until it is, at most
LAST_BREATH = 1.0  # seconds from the release of its jobs to the end of a process that leaves handlers behind
SHOWN = 5  # violations of one kind that are told


@attrs.define(kw_only=True)
class Fault:
    """Something that was done, by the ledger's clock; `hits` None is everybody."""

    kind: str
    began: float
    ended: float = math.inf
    hits: frozenset[str] | None = None
    repeats: bool = False
    charges: bool = False
    loses: bool = False

    def hit(self, worker: str) -> bool:
        return self.hits is None or worker in self.hits

    def covers(self, attempt: Attempt) -> bool:
        """Say whether the attempt was in flight: running, or its outcome not yet written, when this happened."""
        over = math.inf if attempt.ended is None else attempt.ended + IN_FLIGHT
        return self.hit(attempt.worker) and attempt.began <= self.ended and over >= self.began


@attrs.define(kw_only=True)
class Life:
    """A worker's: until when it lived, whether it released running jobs at its end, and its silences, from and to."""

    ended: float = math.inf
    released: bool = False
    silences: list[tuple[float, float]] = attrs.Factory(list)


@attrs.define(kw_only=True)
class Record:
    """All that is known of a drill. `silence` is after how many seconds others may take a silent worker for dead."""

    adds: list[Add]
    attempts: list[Attempt]
    losses: list[Loss] = attrs.Factory(list)
    faults: list[Fault] = attrs.Factory(list)
    lives: dict[str, Life] = attrs.Factory(dict)
    silence: float = 50.0

    def by_job(self) -> dict[int, list[Attempt]]:
        """Return the attempts of each job, in the order they began."""
        found: dict[int, list[Attempt]] = defaultdict(list)
        for attempt in sorted(self.attempts, key=lambda attempt: attempt.began):
            found[attempt.n].append(attempt)
        return found

    def over(self, attempt: Attempt) -> float:
        """Return when an attempt was over, at the latest with its process."""
        life = self.lives.get(attempt.worker, Life())
        return min(math.inf if attempt.ended is None else attempt.ended, life.ended)

    def overlap(self, first: Attempt, second: Attempt) -> bool:
        """Say whether the second began while the first ran and its holder was alive."""
        life = self.lives.get(first.worker, Life())
        if second.began >= self.over(first):
            return False
        if life.released and life.ended - second.began <= LAST_BREATH:
            return False
        if any(first.began < since + PRELUDE and second.began > since + self.silence for since, _ in life.silences):
            return False
        if self.held_up(second):
            return False
        return not any(fault.loses and fault.covers(first) for fault in self.faults)

    def held_up(self, attempt: Attempt) -> bool:
        """Say whether an attempt began after the next one of its job, held up by a fault that hit its worker."""
        return any(
            fault.repeats and fault.hit(attempt.worker) and fault.began <= attempt.began <= fault.ended + IN_FLIGHT
            for fault in self.faults
        ) and any(
            other.n == attempt.n and other.number > attempt.number and other.began < attempt.began
            for other in self.attempts
        )


def violations(record: Record) -> list[str]:
    """Return what did not hold, a few sentences of each kind."""
    found = []
    for check in (
        lost,
        out_of_nothing,
        replaced_too_late,
        overlapping,
        repeated,
        queues_overlapping,
        out_of_order,
        miscounted,
        written_by_others,
    ):
        problems = list(check(record))
        found += problems[:SHOWN]
        if len(problems) > SHOWN:
            found.append(f"... and {len(problems) - SHOWN} more of this kind")
    return found


def vacuous(record: Record) -> list[str]:
    """Return what the drill did not do, so that nothing is held to be proven by a load that was not there."""
    queues = {add.n for add in record.adds if add.queue is not None}
    certain = {add.n for add in record.adds if add.certain}
    offered = {
        "fault": record.faults,
        "job that was rolled back": [add for add in record.adds if add.outcome == "rolled back"],
        "job that was replaced by its key": [add for add in record.adds if add.certain and add.replaces in certain],
        "job of a named queue": [attempt for attempt in record.attempts if attempt.n in queues],
        "job that failed at first": [attempt for attempt in record.attempts if attempt.result == "failed"],
    }
    return [f"there was no {kind}" for kind, found in offered.items() if not found]


def missing(record: Record) -> list[Add]:
    """Return the jobs that were added for certain, not replaced for all we know, and never done."""
    done = {attempt.n for attempt in record.attempts if attempt.result == "done"}
    replaced = {add.replaces for add in record.adds if add.outcome != "rolled back"}
    return [add for add in record.adds if add.certain and add.n not in done and add.n not in replaced]


def lost(record: Record) -> Iterator[str]:
    """Whatever was committed is done, but for what the database itself lost."""
    windows = [fault for fault in record.faults if fault.loses]
    for add in missing(record):
        at = add.settled_at or 0.0
        if not any(fault.began - IN_FLIGHT <= at <= fault.ended for fault in windows):
            yield f"job {add.n} is lost: its add was committed at {at:.3f}"


def out_of_nothing(record: Record) -> Iterator[str]:
    """Nothing that was rolled back, or never added, is begun."""
    real = {add.n for add in record.adds if add.outcome != "rolled back"}
    for attempt in record.attempts:
        if attempt.n not in real:
            yield f"job {attempt.n} ran on {attempt.worker}, though its add was rolled back"


def replaced_too_late(record: Record) -> Iterator[str]:
    """A job that was replaced by its key before it was due is never begun."""
    if any(fault.loses for fault in record.faults):
        return
    begun = {attempt.n for attempt in record.attempts}
    adds = {add.n: add for add in record.adds}
    for add in record.adds:
        before = adds.get(add.replaces or 0)
        if before is None or not add.certain or before.n not in begun:
            continue
        if (add.settled_at or 0.0) < before.intended_at + before.due_in:
            yield f"job {before.n} ran, though {add.n} had replaced it before it was due"


def overlapping(record: Record) -> Iterator[str]:
    """No job runs twice at a time while its first holder lives."""
    for n, attempts in record.by_job().items():
        for first, second in _clashes(record, attempts):
            yield (
                f"job {n} began on {second.worker} at {second.began:.3f} while {first.worker} ran it "
                f"since {first.began:.3f}"
            )


def _clashes(record: Record, attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, Attempt]]:
    """Yield each two that ran at a time and may not, the earlier first; they come in the order they began."""
    running: list[Attempt] = []
    for second in attempts:
        running = [first for first in running if record.over(first) > second.began]
        yield from ((first, second) for first in running if record.overlap(first, second))
        running.append(second)


def repeats(record: Record) -> list[tuple[Attempt, Attempt]]:
    """Return each attempt that had its effect, with the next one of the same job."""
    return [
        (first, second)
        for attempts in record.by_job().values()
        for first, second in pairwise(attempts)
        if first.result == "done"
    ]


def repeated(record: Record) -> Iterator[str]:
    """What was done is done again only where its outcome was in flight at a fault that hit its holder."""
    excuses = [fault for fault in record.faults if fault.repeats or fault.loses]
    for first, second in repeats(record):
        if not any(fault.covers(first) for fault in excuses) and not record.held_up(second):
            yield (
                f"job {first.n} was done by {first.worker} at {first.ended or 0:.3f} "
                f"and begun again on {second.worker} at {second.began:.3f}, with no fault in between"
            )


def _by_queue(record: Record) -> dict[str, list[Attempt]]:
    queues = {add.n: add.queue for add in record.adds if add.queue is not None}
    found: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in sorted(record.attempts, key=lambda attempt: attempt.began):
        if attempt.n in queues:
            found[queues[attempt.n]].append(attempt)
    return found


def queues_overlapping(record: Record) -> Iterator[str]:
    """A named queue runs one job at a time."""
    for queue, attempts in _by_queue(record).items():
        for first, second in _clashes(record, attempts):
            if first.n != second.n:
                yield (
                    f"queue {queue!r}: job {second.n} began on {second.worker} at {second.began:.3f} "
                    f"while {first.worker} ran {first.n}"
                )


def out_of_order(record: Record) -> Iterator[str]:
    """The jobs of a named queue begin in the order they were added, but for those that were put back by a fault."""
    uncertain = {add.n for add in record.adds if not add.certain}
    for queue, attempts in _by_queue(record).items():
        first_ones = {attempt.n: attempt for attempt in reversed(attempts)}
        punctual = sorted(
            (a for a in first_ones.values() if a.number == 1 and a.n not in uncertain), key=lambda a: a.began
        )
        for first, second in pairwise(punctual):
            if first.n > second.n:
                yield f"queue {queue!r}: job {second.n} began after {first.n}, which was added later"


def miscounted(record: Record) -> Iterator[str]:
    """Attempts are what the handler failed and what faults spent; after the first, the reason is at hand."""
    for n, attempts in record.by_job().items():
        failed = 0
        for attempt in attempts:
            spent = sum(fault.charges and fault.began < attempt.began for fault in record.faults)
            if not 1 + failed <= attempt.number <= 1 + failed + spent:
                yield f"job {n}: attempt {attempt.number} ({attempt.worker}) after {failed} failures, {spent} faults"
            elif attempt.number > 1 and not _explained(attempt.last_error, failed=failed, spent=spent):
                yield f"job {n}: attempt {attempt.number} has last_error {attempt.last_error!r}"
            failed += attempt.result == "failed"


def _explained(error: str | None, *, failed: int, spent: int) -> bool:
    text = error or ""
    return (failed > 0 and "Refused: " in text) or (spent > 0 and text.startswith("worker vanished"))


def written_by_others(record: Record) -> Iterator[str]:
    """Only a holder that others had reason to give up finds that its outcome changes nothing."""
    for loss in record.losses:
        silences = record.lives.get(loss.worker, Life()).silences
        if any(since < loss.at for since, _ in silences) or any(fault.loses for fault in record.faults):
            continue
        yield f"job {loss.n}: somebody else wrote its outcome while {loss.worker} lived"
