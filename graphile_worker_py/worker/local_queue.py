"""LocalQueue: claims jobs in bulk, hands them out singly, gives back what nobody started.

How many to claim is measured, not set: as many as the crew can work off in a tenth of a second and while the next claim
is under way, by the time that handlers take; at least one for each idle thread, at most 2,000 (a claim walks over all
that ended since the last vacuum; with 500 a drain took 1.7 times as long). Slow jobs are never hoarded, fast ones come
in bulk; should jobs turn slow after a fast stretch, what has waited here for five seconds goes back, its attempt with
it. Of a named queue a whole run is claimed, as much as one thread can work off in that time; the queue stays locked
until its last is written.

Handing out takes no lock while there are jobs, for `deque.popleft` needs none. A thread that finds nothing waits; one
of the waiting is woken for a claim, and wakes the next if there is more, so that fast jobs do not wake a herd.

`held` are the jobs this pool has claimed and nobody has written an outcome for. After a claim whose answer was lost
on the way, and after an outage, whatever carries our name and is not in it goes back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import psycopg

from graphile_worker_py._database import Database
from graphile_worker_py._outage import is_passing
from graphile_worker_py._service import Service
from graphile_worker_py._watched import hurried
from graphile_worker_py.errors import GraphileWorkerError
from graphile_worker_py.jobs import Job
from graphile_worker_py.worker import claims
from graphile_worker_py.worker.claims import Asked, Claim, Holding, Run
from graphile_worker_py.worker.heartbeat import now
from graphile_worker_py.worker.limited_claims import SOON, LimitedClaims
from graphile_worker_py.worker.pace import Bounds, Pace, Stuck, Throughput

logger = logging.getLogger(__name__)

LARGEST_CLAIM = 2000
MOST_READY = 2 * LARGEST_CLAIM  # while one claim is worked off, the next is under way
TIME_TO_LIVE = 5.0


class LocalQueue(Service):
    """The one place in a pool that claims. `tasks` names what to claim, `forbidden_flags` what to leave.

    `limited` looks, after each claim, for jobs of the tasks that have limits, no further than that has come.
    `on_end` makes it stop at the end of the work: it is called as soon as nothing is ready in the database and nothing
    held here, or with the error of a claim that no further try can mend.
    """

    def __init__(
        self,
        database: Database,
        holder: str,
        *,
        concurrency: int,
        tasks: Callable[[], list[str]],
        forbidden_flags: Callable[[], list[str]],
        poll_interval: float,
        limited: LimitedClaims | None = None,
        on_end: Callable[[Exception | None], None] | None = None,
    ) -> None:
        super().__init__("local queue", database.outage)
        self._database = database
        self._holder = holder
        self._tasks = tasks
        self._forbidden_flags = forbidden_flags
        self._poll_interval = poll_interval
        self._limited = limited
        self._spare = 0  # jobs that the last claim left to those with limits
        self._last: Job | None = None  # and up to where
        self._limited_first = False  # there may be more of them up to there, so that others wait
        self._drained = False  # nothing is ready, and nothing was held that could have made it so
        self._on_end = on_end
        self._changed = threading.Condition()
        self._ready: deque[Job | Run] = deque()
        self._holding = Holding()
        self.held = self._holding.jobs
        self._idle = 0
        self._closed = threading.Event()
        self._more = False  # there may be something to claim that nobody has looked for
        self._low_water = 0
        self._throughput = Throughput(concurrency)
        self._claimed_at = time.monotonic()
        self._asked: Asked | None = None  # sent ahead, while what the one before brought is handed out
        self._answer_lost = False
        self._seen = database.outage.returns, 0
        self.stays_locked = False
        self.last_try_at = 0.0  # when closed, giving back is tried until then; by time.monotonic()
        self._deaths = 0
        self._alive_until = 0.0  # by heartbeat.now(): later than that, others may have been given what is ready here
        self._queues = Pace()
        self._stuck = Stuck()
        self._bounds = Bounds()

    def get(self) -> Job | Run | None:
        """Wait for a job, or a run of jobs, and return it; None when there will be no more."""
        try:
            taken: Job | Run | None = self._ready.popleft() if now() < self._alive_until else self._waited_for()
        except IndexError:
            taken = self._waited_for()
        if self._more and len(self._ready) <= self._low_water:
            self.wake()
        return taken

    def _waited_for(self) -> Job | Run | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._closed.is_set():
                    with contextlib.suppress(IndexError):
                        if now() < self._alive_until:
                            taken = self._ready.popleft()
                            if self._ready:
                                self._changed.notify()
                            return taken
                    if self._more:
                        self.wake()
                    self._changed.wait()
                return None
            finally:
                self._idle -= 1

    def alive(self, until: float) -> None:
        """Let jobs be begun until then, by heartbeat.now()."""
        with self._changed:
            self._alive_until = until
            if self._ready:
                self._changed.notify()

    def give_up(self) -> None:
        """Begin nothing that was claimed so far, for the pool was declared dead; what is still ours of it goes back."""
        with self._changed:
            self._deaths += 1
            self.settled(claims.jobs_of(claims.emptied(self._ready)))
        self.wake()

    def _goes_on(self, deaths: int) -> bool:
        """Say whether jobs may be begun that were claimed when the pool had been declared dead so many times."""
        return deaths == self._deaths and now() < self._alive_until and not self._closed.is_set()

    def settled(self, jobs: list[Job], seconds: float = 0.0) -> None:
        """Take note that these are no longer held; the next of a named queue can then be claimed at once.

        seconds: what threads have spent on them, 0 if they were not begun.
        """
        with self._changed:
            if seconds:
                self._throughput.add(len(jobs), seconds)
            freed = self._limited.ended(jobs) if self._limited else False
            if self._holding.let_go(jobs):
                self._queues.ask()
                freed = True
            if freed or (self._on_end is not None and not self.held):
                self.wake()

    def step(self) -> float | None:
        """Claim what the crew can use; return when to look again if nothing wakes it before."""
        self._drained = False
        delay = self._next_look() if self._asked is None else self._look(self._asked)
        if self._limited:
            delay = min(delay, self._look_at_limited(self._limited))
        if self._drained and self._on_end is not None:
            self._on_end(None)
        return min(delay, self._claimed_at + TIME_TO_LIVE - time.monotonic()) if self._ready else delay

    def _next_look(self) -> float:
        if self._in_doubt():
            self._return_strays()
        expired = self._return_expired()
        self._spare = 0
        count = self._wanted()
        if count <= 0 or (expired and not self._idle):
            self._more = True  # what woke us will be looked for when a thread is idle
        elif self._limited_first:
            self._spare = count
        elif self._limited and not self._tasks():
            self._spare, self._last, self._drained = count, None, not self.held
        else:
            return self._look(self._ask(count))
        return self._poll_interval

    def _look(self, asked: Asked) -> float:
        claim = self._claim(asked)
        with self._changed:
            if asked.deaths != self._deaths:  # others may have been given these: strays, as far as they are ours
                return 0
            self._more = claim.full or claim.queued
            self._holding.add(claim.jobs)  # before a thread can be done with one
            self._ready.extend(self._portions(claim.jobs))
            self._changed.notify()
        self._spare = asked.count if claim.full else asked.count - len(claim.jobs)
        self._last = claim.jobs[-1] if claim.full else None
        if claim.full:
            return self._poll_interval if self._asked is None else 0
        if claim.stuck:
            return 0
        due_in = self._poll_interval if claim.due_in is None else max(0.0, claim.due_in)
        if claim.left_out is not None:
            return min(claim.left_out, due_in)
        if claim.jobs:
            return 0 if claim.queued and self._idle else SOON
        self._drained = not asked.held
        stuck_for = self._stuck.left()
        return due_in if stuck_for is None else min(due_in, stuck_for)

    def _look_at_limited(self, limited: LimitedClaims) -> float:
        """Look for jobs of tasks with limits, and return when to do so again."""
        deaths = self._deaths
        others_wait, self._limited_first = self._limited_first, False
        with self._told_of_errors():
            brought = limited.look(self._spare, last=self._last, busy=[*self._holding.queues, *self._stuck.ids()])
        self._drained = self._drained and brought.all_seen
        room = self._spare - len(brought.jobs)
        self._limited_first = others_wait if self._spare <= 0 else self._last is not None and room <= 0
        if brought.stuck:
            self._stuck.add(brought.stuck)
        if brought.jobs:
            with self._changed:
                if deaths != self._deaths:  # others may have been given these: strays, as far as they are ours
                    limited.ended(brought.jobs)
                    return 0
                self._claimed_at = time.monotonic()
                self._more = self._more or brought.full
                self._holding.add(brought.jobs)
                if self._last is None:
                    self._ready.extend(self._portions(brought.jobs))
                else:
                    self._ready.extendleft(reversed(self._portions(brought.jobs)))
                self._changed.notify()
        limited.settle()
        return 0 if others_wait and not self._limited_first else brought.delay

    def close(self) -> None:
        """Hand out no more and give back what was not started; call it when the thread has stopped.

        What cannot be given back `stays_locked`, and is recovered like the jobs of a dead pool.
        """
        self._closed.set()
        with self._changed:
            unstarted = claims.jobs_of(claims.emptied(self._ready))
            self._changed.notify_all()
        if self._asked is not None:
            with hurried(), contextlib.suppress(psycopg.Error, GraphileWorkerError):  # its jobs are strays then
                unstarted += self._claim(self._asked).jobs
        while unstarted or self._in_doubt():
            try:
                with hurried():
                    if self._in_doubt():
                        self._return_strays()
                    if unstarted:
                        self.give_back(unstarted)
                return
            except (psycopg.Error, GraphileWorkerError) as error:
                if not is_passing(error) or time.monotonic() > self.last_try_at:
                    self.stays_locked = True
                    what = f"{len(unstarted)} claimed jobs" if unstarted else "what a last, unanswered claim has locked"
                    logger.error("%s could not be given back: %s", what, error)
                    return
                time.sleep(0.2)

    def give_back(self, jobs: list[Job], *, free_queues: bool = True, wait: bool = True) -> None:
        """Unlock these jobs, their attempt not spent, and their queues, but for those in which we still run one.

        Without `wait`, those that a transaction holds stay ours.
        """
        ids = [job.id for job in jobs]
        claimed = {"holder": self._holder, "ids": ids, "since": list({job.locked_at for job in jobs})}
        rows = self._database.run("return_jobs", {**claimed, "free_queues": free_queues, "wait": wait})
        returned = {row[0] for row in rows}
        self.settled(jobs if wait else [job for job in jobs if job.id in returned])

    def _wanted(self, coming: int = 0) -> int:
        """Return how many to claim, `coming` being claimed but not ready yet: no more than will be begun soon."""
        with self._changed:
            target = max(self._idle, min(MOST_READY, self._throughput.soon()))
            self._low_water = target // 2
            return min(LARGEST_CLAIM, target - len(self._ready) - coming)

    def _ask(self, count: int, coming: int = 0) -> Asked:
        """Send a claim; the database sets about it at once. `coming`: jobs of the one before, not yet held."""
        with self._changed:
            held = len(self.held) + coming  # before it is sent: what ends meanwhile may have hidden jobs from it
        with_queues = not self._queues.left()
        if with_queues:
            self._queues.begin()
        lanes = None if with_queues else self._bounds.lanes()  # a job that bounds hide could be the first of its queue
        with self._told_of_errors():
            tasks, forbidden = self._tasks(), self._forbidden_flags()
            self._answer_lost = True
            at, deaths = time.monotonic(), self._deaths
            answer = claims.begin_claim(
                self._database,
                self._holder,
                tasks=tasks,
                forbidden=forbidden,
                count=count,
                run_length=max(1, min(LARGEST_CLAIM, self._throughput.soon_for_one())),
                busy=[*self._holding.queues, *self._stuck.ids()],
                within=self._poll_interval,
                with_queues=with_queues,
                lanes=lanes,
            )
            return Asked(at, deaths, count, held, with_queues, lanes, answer)

    def _claim(self, asked: Asked) -> Claim:
        """Wait for a claim, and send the next if this one brought plenty that will not last."""
        self._asked = None
        with self._told_of_errors():
            told, jobs_of = claims.read(asked.answer())
        self._answer_lost = lost = asked.deaths != self._deaths
        self._claimed_at = time.monotonic()
        self._throughput.claim_took(self._claimed_at - asked.at)
        queued, full = told["queued"] and not lost, told["jobs"] >= asked.count and not lost
        if told["stuck"]:
            self._stuck.add(told["stuck"])
        elif asked.with_queues and not queued:
            self._queues.rest(told["queue_seconds"] + (told["seconds"] if self._bounds.slow else 0))
        if full and not queued and not self._limited:  # which are to be looked for first
            self._ask_ahead(told["jobs"])
        jobs = [] if lost else self._made(jobs_of)
        self._bounds.learn(jobs, bounded=asked.lanes is not None, seconds=told["seconds"])
        looked = (self._queues, asked.with_queues), (self._bounds, not asked.lanes)
        left_out = min((pace.left() for pace, everywhere in looked if not everywhere), default=None)
        return Claim(jobs, full, queued, left_out, told["due_in"], bool(told["stuck"]))

    def _made(self, jobs_of: Callable[[], list[Job]]) -> list[Job]:
        """Make the jobs of a claim; should that fail they are strays, and so are those of the claim sent ahead."""
        try:
            with self._told_of_errors():
                return jobs_of()
        except BaseException:
            self._answer_lost = True
            self._asked = self._asked and attrs.evolve(self._asked, deaths=-1)
            raise

    def _ask_ahead(self, coming: int) -> None:
        """Send the next claim before this one, which is committed, is handed out: the crew is faster than claims."""
        count = self._wanted(coming)
        if count >= LARGEST_CLAIM // 2 and not self.stopping.is_set():
            with contextlib.suppress(Exception):  # the next step finds out why, and gives back what it brought
                self._asked = self._ask(count, coming)

    @contextmanager
    def _told_of_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._bounds.forget()
            if self._on_end is not None and not is_passing(error):
                self._on_end(error)
            raise

    def _portions(self, jobs: list[Job]) -> list[Job | Run]:
        self._throughput.brought(jobs)
        return claims.portions(jobs, self._claimed_at + TIME_TO_LIVE, functools.partial(self._goes_on, self._deaths))

    def _in_doubt(self) -> bool:
        """Say whether jobs may be locked for us that we do not know of.

        After an outage, too: a server in its place may not have heard of the last outcomes. And after give_up().
        """
        seen = self._outage.returns, self._deaths
        self._answer_lost |= seen != self._seen
        self._seen = seen
        return self._answer_lost or (self._limited is not None and self._limited.is_doubtful)

    def _return_strays(self) -> None:
        with self._changed:
            held = list(self.held.values())
        known = {"held": [job.id for job in held], "since": list({job.locked_at for job in held})}
        strays = self._database.run("return_strays", {"holder": self._holder, **known})
        if strays:
            logger.warning("gave back %s jobs whose claim was never answered", len(strays))
        self._answer_lost = False
        if self._limited is not None:
            self._limited.settle()

    def _return_expired(self) -> bool:
        if not self._ready or time.monotonic() - self._claimed_at < TIME_TO_LIVE:
            return False
        deaths, expired = self._deaths, claims.emptied(self._ready)
        try:
            self.give_back(claims.jobs_of(expired))
        except BaseException:
            with self._changed:
                if deaths == self._deaths:
                    self._ready.extendleft(reversed(expired))
                    self._changed.notify()
                else:  # strays now, as in give_up()
                    self.settled(claims.jobs_of(expired))
            raise
        return True
