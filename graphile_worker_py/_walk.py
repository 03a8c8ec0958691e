"""The table of jobs, read piece by piece, as much of it at a time as a budget allows; no database here.

Counting five million jobs takes a second or two of a server, so a view that is drawn anew each second must not. But a
table can be read by the numbers of its pages, and what was counted in one piece of it hardly changes while the others
are read. So each look reads as many pieces as its share of time allows, those that were read longest ago: a small table
whole every time, a large one in turns. The sum of what was counted last in each is what there is, as old as the oldest.
Until each was read once, what was read stands for the rest.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import attrs

from graphile_worker_py.jobs import JobState

PIECE = 256  # pages: 2 MB, some 14,000 jobs, counted in about 10 ms
PIECES = 512  # at most, of twice as many pages each when there would be more
GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, without their whole parts, are spread evenly from the first on


class Budget:
    """Time of a server: `share` of all that passes may be spent, `grant` at once; `most` is left, or owed, at most."""

    def __init__(
        self, share: float, *, grant: float, most: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.share = share
        self.left = grant
        self._most = most
        self._clock = clock
        self._counted = clock()

    def accrue(self) -> None:
        """Add the share of the time that has passed."""
        now = self._clock()
        self.left = min(self._most, self.left + self.share * (now - self._counted))
        self._counted = now

    def spend(self, seconds: float) -> None:
        """Take away what was spent; there may be less than nothing left, but not for ever where all took too long."""
        self.left = max(-self._most, self.left - seconds)

    @property
    def pause(self) -> float:
        """Return how many seconds it takes until all is paid for that was spent."""
        return max(0.0, -self.left / self.share)


@attrs.frozen
class Count:
    """So many jobs of one task in one state, of one holder if they run; `age` is that of the oldest, in seconds."""

    task: str | None
    state: JobState
    holder: str | None
    jobs: int
    age: float | None
    errors: int


@attrs.frozen
class Row:
    """A job that runs (`holder` and `age`: whose it is, and for how many seconds), or waits or failed with an error.

    `failed_at`: when that seems to have been, in microseconds of PostgreSQL; `guessed`: it is no time, but their order.
    """

    task: str | None
    id: int
    attempt: int
    max_attempts: int
    holder: str | None
    age: float | None
    error: str | None
    failed_at: int | None
    guessed: bool = False


@attrs.frozen
class Piece:
    """What was seen in some pages: counts, and rows of interest; `read_at` by the clock of the walk."""

    counts: tuple[Count, ...]
    rows: tuple[Row, ...]
    read_at: float


Key: TypeAlias = "tuple[str | None, JobState, str | None]"
Together: TypeAlias = "tuple[Counter[Key], dict[Key, float]]"  # jobs, and since when by the clock of the walk


class Walk:
    """Which pages to read next, and what was seen in all of them.

    `pages`: how many at a time; None reads everything at once, where pages cannot be told apart.
    """

    def __init__(self, pages: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pages = pages
        self._clock = clock
        self._together: Together | None = None  # what was counted, until more is read
        self._pieces: list[Piece | None] = [None]
        self._chosen = 0
        self._began = 0.0

    def begin(self, pages: int) -> None:
        """Begin another look at the table, which has so many pages now."""
        while self._pages is not None and pages > self._pages * PIECES:
            self._pages *= 2
            self._pieces = []
        size = 1 if self._pages is None else max(1, math.ceil(pages / self._pages))
        if size != len(self._pieces):
            self._pieces = self._pieces[:size] + [None] * (size - len(self._pieces))
            self._together = None
        self._began = self._clock()

    def next(self) -> int | None:
        """Return the number of the piece to read next; None where this look has read them all."""
        unread = [number for number, piece in enumerate(self._pieces) if piece is None]
        if unread:  # spread over the table, for its old end may be all failures, and its new one all work
            return unread[int(len(unread) * (self._chosen * GOLDEN % 1))]
        number, piece = min(enumerate(self.pieces), key=lambda pair: pair[1].read_at)
        return None if piece.read_at >= self._began else number

    def bounds(self, number: int) -> dict[str, str]:
        """Return the first and the last place in a piece, as PostgreSQL writes them; the last piece has no end."""
        first = 0 if self._pages is None else number * self._pages
        last = self._pages is None or number == len(self._pieces) - 1
        return {"first": f"({first},0)", "beyond": f"({2**32 - 2 if last else first + (self._pages or 0)},0)"}

    def enter(self, number: int, counts: Iterable[Count], rows: Iterable[Row]) -> None:
        """Take what was seen in a piece; the errors themselves are not kept."""
        kept = tuple(row if row.error is None else attrs.evolve(row, error=None) for row in rows)
        self._pieces[number] = Piece(tuple(counts), kept, self._clock())
        self._chosen += 1
        self._together = None

    def news(self, number: int, rows: Iterable[Row], *, most: int) -> set[int]:
        """Return the ids of the jobs in these rows that have failed since the piece was read last; none at first.

        Of so many errors that not all were seen the last time, `most`, the older ones are no news when they are.
        """
        before = self._pieces[number]
        if before is None:
            return set()
        since = {}
        for guessed in (False, True):
            seen = [row.failed_at for row in before.rows if row.failed_at is not None and row.guessed == guessed]
            since[guessed] = min(seen) if len(seen) >= most else -math.inf
        return {row.id for row in rows if row.failed_at is not None and row.failed_at > since[row.guessed]}

    @property
    def pieces(self) -> list[Piece]:
        """Return what was seen, piece by piece."""
        return [piece for piece in self._pieces if piece is not None]

    @property
    def share(self) -> float:
        """Return how much of the table was read, from 0 to 1."""
        return len(self.pieces) / len(self._pieces)

    @property
    def age(self) -> float:
        """Return how many seconds ago the oldest piece was read that was not read in this look; 0 if all were."""
        oldest = min((piece.read_at for piece in self.pieces), default=self._began)
        return max(0.0, self._began - oldest)

    def counts(self) -> list[Count]:
        """Return the counts of all pieces together, with ages as they are now."""
        if self._together is None:
            self._together = self._put_together()
        jobs, since = self._together
        now = self._clock()
        ages = {key: now - began for key, began in since.items()}
        return [Count(*key, number, ages.get(key), 0) for key, number in jobs.items()]

    def _put_together(self) -> Together:
        jobs: Counter[Key] = Counter()
        since: dict[Key, float] = {}
        for piece in self.pieces:
            for count in piece.counts:
                key = count.task, count.state, count.holder
                jobs[key] += count.jobs
                if count.age is not None:
                    since[key] = min(since.get(key, math.inf), piece.read_at - count.age)
        return jobs, since

    def rows(self) -> Iterator[Row]:
        """Yield all rows, with ages as they are now."""
        now = self._clock()
        for piece in self.pieces:
            for row in piece.rows:
                yield row if row.age is None else attrs.evolve(row, age=row.age + now - piece.read_at)
