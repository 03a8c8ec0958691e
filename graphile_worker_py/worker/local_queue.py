"""LocalQueue: claims jobs in bulk, hands them out singly, gives back what nobody started.

How many to claim is measured, not set: as many as the crew can work off in a tenth of a second and while the next claim
is under way, by the time that handlers take; at least one for each idle thread, at most 500. Slow jobs are therefore
never hoarded and fast ones come in bulk; should the jobs turn slow after a fast stretch, what has waited here for five
seconds goes back, its attempt with it. Of a named queue a whole run is claimed, as much as one thread can work off in
that time; the queue stays locked until its last is written.

Handing out takes no lock while there are jobs, for `deque.popleft` needs none. A thread that finds nothing waits; one
of the waiting is woken for a claim, and wakes the next if there is more, so that fast jobs do not wake a herd.

`held` are the jobs this pool has claimed and nobody has written an outcome for. After a claim whose answer was lost
on the way, and after an outage, whatever carries our name and is not in it goes back.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from graphile_worker_py._database import Database
from graphile_worker_py._outage import is_passing
from graphile_worker_py._service import Service
from graphile_worker_py._watched import hurried
from graphile_worker_py.errors import GraphileWorkerError
from graphile_worker_py.jobs import Job
from graphile_worker_py.worker.claims import IN_ORDER, Asked, Claim, Run, jobs_of
from graphile_worker_py.worker.heartbeat import now
from graphile_worker_py.worker.pace import Bounds, Pace, Stuck

logger = logging.getLogger(__name__)

LARGEST_CLAIM = 500
LONGEST_CLAIM = 1.0  # seconds of waiting for one that are provided for
MOST_READY = 2 * LARGEST_CLAIM  # while one claim is worked off, the next is under way
READY_SECONDS = 0.1
TIME_TO_LIVE = 5.0
SOON = 0.05  # seconds after a claim that found little, until it is worth looking for what comes next


class LocalQueue(Service):
    """The one place in a pool that claims. `tasks` names what to claim, `forbidden_flags` what to leave.

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
        on_end: Callable[[Exception | None], None] | None = None,
    ) -> None:
        super().__init__("local queue", database.outage)
        self._database = database
        self._holder = holder
        self._concurrency = concurrency
        self._tasks = tasks
        self._forbidden_flags = forbidden_flags
        self._poll_interval = poll_interval
        self._on_end = on_end
        self._changed = threading.Condition()
        self._ready: deque[Job | Run] = deque()
        self.held: dict[int, Job] = {}
        self._busy: Counter[int] = Counter()  # how many held jobs there are of each named queue
        self._idle = 0
        self._closed = threading.Event()
        self._more = False  # there may be something to claim that nobody has looked for
        self._low_water = 0
        self._settled = 0
        self._spent = 0.0  # seconds of the crew's threads on those
        self._rate = 0.0  # jobs per second, if the whole crew is at work
        self._claim_seconds = 0.0  # what a claim takes, to the database and back
        self._measured_at = self._claimed_at = time.monotonic()
        self._asked: Asked | None = None  # sent ahead, while what the one before brought is handed out
        self._answer_lost = False
        self._returns = database.outage.returns
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
        """Begin nothing that was claimed so far: the pool was declared dead, and others have been given it."""
        with self._changed:
            self._deaths += 1
            unstarted = jobs_of(self._taken_back())
        self.give_back(unstarted)  # as far as it is ours after all

    def _goes_on(self, deaths: int) -> bool:
        """Say whether jobs may be begun that were claimed when the pool had been declared dead so many times."""
        return deaths == self._deaths and now() < self._alive_until and not self._closed.is_set()

    def _hold(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.held[job.id] = job
            if job.job_queue_id is not None:
                self._busy[job.job_queue_id] += 1

    def settled(self, jobs: list[Job], seconds: float = 0.0) -> None:
        """Take note that these are no longer held; the next of a named queue can then be claimed at once.

        seconds: what threads have spent on them, 0 if they were not begun.
        """
        freed = False
        with self._changed:
            if seconds:
                self._settled += len(jobs)
                self._spent += seconds
            for job in jobs:
                if self.held.get(job.id) is job:  # not one that was claimed anew in the meantime
                    del self.held[job.id]
                    if job.job_queue_id is not None:
                        freed = self._left(job.job_queue_id) or freed
            if freed:
                self._queues.ask()
            if freed or (self._on_end is not None and not self.held):
                self.wake()

    def _left(self, queue_id: int) -> bool:
        """Count one job of a named queue less; say whether it was the last, so that the queue is free."""
        self._busy[queue_id] -= 1
        if self._busy[queue_id]:
            return False
        del self._busy[queue_id]
        return True

    def step(self) -> float | None:
        """Claim what the crew can use; return when to look again if nothing wakes it before."""
        if self._asked is not None:
            return self._look(self._asked)
        self._doubt_after_an_outage()
        if self._answer_lost:
            self._return_strays()
        expired = self._return_expired()
        count = self._wanted()
        if count > 0 and not (expired and not self._idle):
            delay = self._look(self._ask(count))
        else:
            delay = self._poll_interval
            self._more = True  # what woke us will be looked for when a thread is idle
        return min(delay, self._claimed_at + TIME_TO_LIVE - time.monotonic()) if self._ready else delay

    def _look(self, asked: Asked) -> float:
        claim = self._claim(asked)
        with self._changed:
            self._more = claim.full or claim.queued
            self._hold(claim.jobs)  # before a thread can be done with one
            self._ready.extend(self._portions(claim.jobs))
            self._changed.notify()
        if claim.full:
            return self._poll_interval if self._asked is None else 0
        if claim.stuck:
            return 0
        due_in = self._poll_interval if claim.due_in is None else max(0.0, claim.due_in)
        if claim.left_out is not None:
            return min(claim.left_out, due_in)
        if claim.jobs:
            return 0 if claim.queued and self._idle else SOON
        if not asked.held and self._on_end is not None:
            self._on_end(None)
        stuck_for = self._stuck.left()
        return due_in if stuck_for is None else min(due_in, stuck_for)

    def close(self) -> None:
        """Hand out no more and give back what was not started; call it when the thread has stopped.

        What cannot be given back `stays_locked`, and is recovered like the jobs of a dead pool.
        """
        self._doubt_after_an_outage()
        self._closed.set()
        with self._changed:
            unstarted = jobs_of(self._taken_back())
            self._changed.notify_all()
        if self._asked is not None:
            with hurried(), contextlib.suppress(psycopg.Error, GraphileWorkerError):  # its jobs are strays then
                unstarted += self._claim(self._asked).jobs
        while unstarted or self._answer_lost:
            try:
                with hurried():
                    if self._answer_lost:
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
        """Return how many to claim, `coming` being claimed but not ready yet: no more than will be begun soon.

        The rate is what the whole crew could do by the time its handlers take, not what it has done: that would be held
        down by claims that take long, and so keep them small.
        """
        now = time.monotonic()
        with self._changed:
            rate = self._concurrency * self._settled / self._spent if self._settled else 0.0
            if now - self._measured_at >= READY_SECONDS:
                self._rate = max(rate, self._rate / 2)
                self._settled, self._spent, self._measured_at = 0, 0.0, now
            target = max(self._idle, min(MOST_READY, int(max(rate, self._rate) * self._horizon())))
            self._low_water = target // 2
            return min(LARGEST_CLAIM, target - len(self._ready) - coming)

    def _run_length(self) -> int:
        return max(1, min(LARGEST_CLAIM, math.ceil(self._rate * self._horizon() / self._concurrency)))

    def _horizon(self) -> float:
        """Return for how many seconds there should be work: the next claim takes some of them."""
        return READY_SECONDS + self._claim_seconds

    def _ask(self, count: int, coming: int = 0) -> Asked:
        """Send a claim; the database sets about it at once. `coming`: jobs of the one before, not yet held."""
        with self._changed:
            held = len(self.held) + coming  # before it is sent: what ends meanwhile may have hidden jobs from it
        with_queues = not self._queues.left()
        if with_queues:
            self._queues.begin()
        lanes = None if with_queues else self._bounds.lanes()  # a job that bounds hide could be the first of its queue
        with self._told_of_errors():
            parameters = {
                "tasks": self._tasks(),
                "forbidden": self._forbidden_flags(),
                "holder": self._holder,
                "count": count,
                "run_length": self._run_length(),
                "with_queues": with_queues,
                "busy": [*self._busy, *self._stuck.ids()],
                "priorities": lanes and lanes[0],
                "since": lanes and lanes[1],
                "within": self._poll_interval,
            }
            self._answer_lost = True
            at, deaths = time.monotonic(), self._deaths
            answer = self._database.begin_by_index("claim_jobs", parameters)
            return Asked(at, deaths, count, held, with_queues, lanes, answer)

    def _claim(self, asked: Asked) -> Claim:
        """Wait for a claim, and send the next if this one brought plenty that will not last."""
        self._asked = None
        with self._told_of_errors():
            rows = asked.answer()
            self._answer_lost = asked.deaths != self._deaths  # others may have been given these: strays, as far as ours
            if self._answer_lost:
                del rows[1:]
        self._claimed_at = time.monotonic()
        self._claim_seconds = min(self._claimed_at - asked.at, LONGEST_CLAIM)
        told = json.loads(rows.pop(0)[4])
        queued = any(row[3] is not None for row in rows)
        full = len(rows) >= asked.count
        if told["stuck"]:
            self._stuck.add(told["stuck"])
        elif asked.with_queues and not queued:
            self._queues.rest(told["queue_seconds"] + (told["seconds"] if self._bounds.slow else 0))
        if full and not queued and not self._bounds.slow:
            self._ask_ahead(len(rows))
        jobs = sorted(itertools.starmap(Job, rows), key=IN_ORDER)
        self._bounds.learn(jobs, bounded=asked.lanes is not None, seconds=told["seconds"])
        looked = (self._queues, asked.with_queues), (self._bounds, not asked.lanes)
        left_out = min((pace.left() for pace, everywhere in looked if not everywhere), default=None)
        return Claim(jobs, full, queued, left_out, told["due_in"], bool(told["stuck"]))

    def _ask_ahead(self, coming: int) -> None:
        """Send the next claim before this one is handed out, where the crew is faster than claims.

        The claims stay in order, for this one is committed. Where it cannot be sent, the next step finds out why.
        """
        count = self._wanted(coming)
        if count >= LARGEST_CLAIM // 2 and not self.stopping.is_set() and self._queues.left():
            with contextlib.suppress(Exception):
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

    def _portions(self, jobs: list[Job]) -> Iterator[Job | Run]:
        """Yield jobs without a queue as they are, and those of one queue together."""
        runs: dict[int, Run] = {}
        goes_on = functools.partial(self._goes_on, self._deaths)
        for job in jobs:
            if job.job_queue_id is None:
                yield job
            else:
                runs.setdefault(job.job_queue_id, Run(self._claimed_at + TIME_TO_LIVE, goes_on)).jobs.append(job)
        yield from runs.values()

    def _taken_back(self) -> list[Job | Run]:
        """Empty what is ready, one by one: crew threads may be taking from it at the same time."""
        taken: list[Job | Run] = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._ready.popleft())
        return taken

    def _doubt_after_an_outage(self) -> None:
        """Look for strays if the database was away: a server in its place may not have heard of the last outcomes."""
        if self._outage.returns != self._returns:
            self._returns = self._outage.returns
            self._answer_lost = True

    def _return_strays(self) -> None:
        with self._changed:
            held = list(self.held.values())
        known = {"held": [job.id for job in held], "since": list({job.locked_at for job in held})}
        strays = self._database.run("return_strays", {"holder": self._holder, **known})
        if strays:
            logger.warning("gave back %s jobs whose claim was never answered", len(strays))
        self._answer_lost = False

    def _return_expired(self) -> bool:
        if not self._ready or time.monotonic() - self._claimed_at < TIME_TO_LIVE:
            return False
        expired = self._taken_back()
        try:
            self.give_back(jobs_of(expired))
        except BaseException:
            with self._changed:
                self._ready.extendleft(reversed(expired))
                self._changed.notify()
            raise
        return True
