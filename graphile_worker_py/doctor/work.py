"""The work: whether somebody does it, locks of those who are gone, and jobs that nobody will run."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from graphile_worker_py._database import Row
from graphile_worker_py.doctor.findings import SEVERAL, Finding, age, listed, note, ok, warning
from graphile_worker_py.doctor.visit import Unseen, Visit

JOBS, TASKS, QUEUES, POOLS = "_private_jobs", "_private_tasks", "_private_job_queues", "_private_py_pools"
FIRST = 1_000  # ready jobs of each priority are looked at
FOUR_HOURS = 4 * 3600.0
FOR_EVER = 1e9  # seconds: one that was declared dead, while a job of it is in doubt, has its last sign in 1970
BY_INDEX = ("enable_seqscan", "enable_bitmapscan", "enable_sort")


@attrs.frozen
class Pool:
    """A pool that is entered among the living."""

    id: str
    host: str
    pid: int
    silent: float
    dead_after: float
    unlock: str
    remove: str

    @property
    def is_dead(self) -> bool:
        """Return whether it was silent for too long."""
        return self.silent > self.dead_after


def pools(visit: Visit) -> list[Pool]:
    """Return the pools that are entered, those that are silent for longest first."""
    visit.must_see(POOLS)
    return [Pool(*row) for row in visit.look_once("doctor_pools")]


def workers(visit: Visit) -> Iterator[Finding]:
    """Do our workers live?"""
    entered = pools(visit)
    dead = [pool for pool in entered if pool.is_dead]
    for pool in dead[:SEVERAL]:
        since = "" if pool.silent > FOR_EVER else f" for {age(pool.silent)}"
        yield warning(
            f"worker {pool.id} (process {pool.pid} on {pool.host}) has given no sign of life{since}",
            "start a worker: a minute later it takes its jobs over; or free them now, if you know that it is dead",
            pool.unlock,
            pool.remove,
        )
    if len(dead) == len(entered):
        yield note("no worker of ours is running (of Node's nothing is known)", "start one: graphile-worker-py run")
    elif not dead:
        yield ok(f"{len(entered)} worker pools give signs of life")


def locks(visit: Visit) -> Iterator[Finding]:
    """Are jobs locked by those who are gone, or for too long?"""
    limit = visit.thresholds.locked.total_seconds()
    visit.must_see(JOBS, QUEUES)
    try:
        living = {pool.id for pool in pools(visit) if not pool.is_dead}
    except Unseen:  # a schema without our own tables
        living = set()
    found = [row for row in survey(visit, "holder") if row[3] > (FOUR_HOURS if row[0] in living else limit)]
    for holder, jobs, queues, seconds, percent, unlock in found[:SEVERAL]:
        who = "which lives" if holder in living else "of which no sign of life is known, as of Node's workers"
        yield (warning if seconds > FOUR_HOURS else note)(
            f"{holder}, {who}, has held locks for up to {age(seconds)}: of jobs {about(jobs, percent)}, of queues "
            f"{queues:,}; after four hours they count as left behind, and the jobs are started again",
            "see whether it still works on them; free them if you know that it does not",
            unlock,
        )
    if not found:
        yield ok("nothing is locked by somebody unknown for long")


def waiting(visit: Visit) -> Iterator[Finding]:
    """Do ready jobs wait that somebody could run?"""
    limit = visit.thresholds.waiting.total_seconds()
    found = [
        (task, jobs, seconds)
        for task, jobs, seconds in first_ready(visit)
        if seconds > limit and (visit.tasks is None or task in visit.tasks)
    ]
    if not found:
        yield ok("no ready job waits for long")
        return
    told = listed(
        [f"{task} ({jobs:,}{'+' * (jobs >= FIRST)}, for up to {age(seconds)})" for task, jobs, seconds in found]
    )
    yield warning(
        f"ready jobs wait to be run: {told}",
        "see that a worker with these tasks runs (graphile-worker-py workers), and whether more are needed; jobs also "
        "wait for their named queue (graphile-worker-py queues), for a limit, and where workers leave their flag alone",
    )


def unknown_tasks(visit: Visit) -> Iterator[Finding]:
    """Do jobs wait for which nobody has a handler?"""
    if visit.tasks is None:
        yield ok("not compared with a worker's: name one as MODULE:ATTRIBUTE")
        return
    jobs = {task: 0 for task, *_ in first_ready(visit)} | {
        task: waits for task, waits, *_ in survey(visit, "task") if waits
    }
    found = sorted(jobs.keys() - visit.tasks)
    if not found:
        yield ok("all jobs that wait are of tasks that have a handler here")
        return
    yield warning(
        f"jobs wait of tasks that have no handler here: {listed(found)}",
        "see that another worker has them, or register them; jobs that nobody wants are ended by "
        "graphile-worker-py jobs cancel --task NAME",
    )


def failed(visit: Visit) -> Iterator[Finding]:
    """Have jobs failed for good?"""
    found = [(task, jobs, percent) for task, _, jobs, _, percent, _ in survey(visit, "task") if jobs]
    if not found:
        yield ok("no job has failed for good")
        return
    told = listed([f"{task} ({about(jobs, percent)})" for task, jobs, percent in found])
    yield warning(
        f"jobs have failed for good: {told}",
        "look at them (graphile-worker-py jobs list --state failed), then let them run again (jobs run-now) or delete "
        "them (cleanup DELETE_PERMAFAILED_JOBS)",
    )


def survey(visit: Visit, kind: str) -> list[Row]:
    """Return the rows of one kind, "task" or "holder", of what sql/doctor_survey.sql counts, without the kind."""
    visit.must_see(JOBS, TASKS, QUEUES)
    return [tuple(row) for known, *row in visit.look_once("doctor_survey") if known == kind]


def first_ready(visit: Visit) -> list[Row]:
    """Return of the first ready jobs: each task, how many, and the age of the oldest in seconds."""
    visit.must_see(JOBS, TASKS)
    return visit.look("doctor_waiting", off=BY_INDEX)


def about(count: int, percent: float) -> str:
    """Return a number, or what it comes to where only a share was looked at."""
    return f"{count:,}" if percent >= 100 else f"about {round(count * 100 / percent, -2):,.0f}"
