"""A Queue in processes that fork: children open pools of their own, parents go on with theirs.

Forking happens in programs of their own: a fork of a process with threads is a DeprecationWarning since Python 3.12,
and what is left in a child must not be pytest.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from graphile_worker_py import Queue

ALLOW_FORKS = "ignore:This process:DeprecationWarning"


def run(program: str, tmp_path: Path, *arguments: str) -> str:
    """Run a program with warnings as errors, and return what it printed; it may say nothing else."""
    path = tmp_path / "program.py"
    path.write_text(program, "utf-8")
    command = [sys.executable, "-W", "error", "-W", ALLOW_FORKS, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def payloads(queue: Queue) -> list[Any]:
    return sorted(queue.job(info.id).payload for info in queue.jobs(limit=1000))


FORKING = """
import os, sys
from graphile_worker_py import Queue

queue = Queue(sys.argv[1])
queue.add_job("task", ["parent", -1])
for number in range(20):
    child = os.fork()
    if not child:
        queue.add_job("task", ["child", number])
        queue.add_job("task", ["child", number])
        sys.exit(0)
    queue.add_job("task", ["parent", number])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
queue.close()
"""


def test_parent_and_child_both_add_after_a_fork(queue: Queue, tmp_path: Path, migrated_url: str) -> None:
    run(FORKING, tmp_path, migrated_url)
    expected = [["child", number] for number in range(20) for _ in "12"] + [["parent", n] for n in range(-1, 20)]
    assert payloads(queue) == sorted(expected)


FORKING_AMID_THREADS = """
import os, sys, threading
from graphile_worker_py import JobSpec, Queue

queue = Queue(sys.argv[1], max_size=3)
done = threading.Event()
counts = [0] * 4

def add(index):
    while not done.is_set():
        queue.add_jobs([JobSpec("task", ["thread", index])])
        counts[index] += 1

threads = [threading.Thread(target=add, args=[index]) for index in range(4)]
for thread in threads:
    thread.start()
for number in range(20):
    child = os.fork()
    if not child:
        queue.add_job("task", ["child", number])
        queue.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
done.set()
for thread in threads:
    thread.join()
queue.close()
print(sum(counts))
"""


def test_a_fork_in_the_middle_of_other_threads_work_harms_neither(
    queue: Queue, tmp_path: Path, migrated_url: str, db: psycopg.Connection
) -> None:
    added = int(run(FORKING_AMID_THREADS, tmp_path, migrated_url))
    query = "select payload ->> 0, count(*) from graphile_worker._private_jobs group by 1 order by 1"
    assert db.execute(query).fetchall() == [("child", 20), ("thread", added)]


MULTIPROCESSING = """
import multiprocessing, sys
from graphile_worker_py import Queue

queue = Queue(sys.argv[2])

def add(number):
    with queue:
        return queue.add_job("task", ["child", number]).id

if __name__ == "__main__":
    queue.add_job("task", ["parent", 0])
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        print(len(set(pool.map(add, range(9), chunksize=1))))
        pool.close()
        pool.join()
    queue.add_job("task", ["parent", 1])
    queue.close()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_shares_a_queue_of_a_module(
    queue: Queue, tmp_path: Path, migrated_url: str, method: str
) -> None:
    assert run(MULTIPROCESSING, tmp_path, method, migrated_url) == "9\n"
    assert payloads(queue) == [["child", number] for number in range(9)] + [["parent", 0], ["parent", 1]]


GENERATIONS = """
import os, sys
from graphile_worker_py import Queue

queue = Queue(sys.argv[1])
for generation in range(4):
    queue.add_job("task", [generation])
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        queue.add_job("task", [generation])
        sys.exit(status)
queue.add_job("task", [4])
"""


def test_grandchildren_add_as_well(queue: Queue, tmp_path: Path, migrated_url: str) -> None:
    run(GENERATIONS, tmp_path, migrated_url)
    assert payloads(queue) == [[0], [0], [1], [1], [2], [2], [3], [3], [4]]


CLOSED = """
import os, sys, threading
from graphile_worker_py import Queue

queue = Queue(sys.argv[1])
queue.add_job("task", ["before"])
queue.close()
assert threading.active_count() == 1  # what Python would warn of
child = os.fork()
queue.add_job("task", ["after"])
queue.close()
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_queue_that_is_closed_before_the_fork_leaves_no_thread(
    queue: Queue, tmp_path: Path, migrated_url: str
) -> None:
    run(CLOSED, tmp_path, migrated_url)
    assert payloads(queue) == [["after"], ["after"], ["before"]]


GIVEN_POOL = """
import os, sys
from graphile_worker_py import NotSupported, Queue
from psycopg_pool import ConnectionPool

with ConnectionPool(sys.argv[1], min_size=1, open=True) as pool:
    queue = Queue(pool)
    if sys.argv[2] == "used":
        queue.add_job("task")
    child = os.fork()
    if not child:
        try:
            queue.add_job("task")
        except NotSupported as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    queue.add_job("task")
"""


@pytest.mark.parametrize("used", ["used", "not used yet"])
def test_a_given_pool_cannot_go_through_a_fork_and_says_so(
    queue: Queue, tmp_path: Path, migrated_url: str, used: str
) -> None:
    said = run(GIVEN_POOL, tmp_path, migrated_url, used)
    assert said.startswith("this ConnectionPool was made before a fork; give the Queue a conninfo")
    assert len(queue.jobs()) == (2 if used == "used" else 1)


STOPPING_IN_THE_CHILD = """
import os, sys, threading
from graphile_worker_py import JobCompleted, JobLost, Queue, WorkerPool
from graphile_worker_py.worker.listener import Listener

turns, wait = [], Listener._wait
Listener._wait = lambda self, connection, until: (turns.append(1), wait(self, connection, until))
queue = Queue(sys.argv[1])
running, go, done, lost = threading.Event(), threading.Event(), threading.Semaphore(0), []
queue.events.subscribe(JobCompleted, lambda event: done.release())
queue.events.subscribe(JobLost, lost.append)

@queue.task
def work(payload):
    running.set()
    assert go.wait(30)

pool = WorkerPool(queue, 2, poll_interval=3600)
pool.start()
work.add_job(queue_name="one")
work.add_job(queue_name="one")
assert running.wait(30)
child = os.fork()
if not child:
    stopped = [pool.stop(), pool.stop(timeout=1)]
    os._exit(0 if stopped == [[], []] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(pool.running()) == 1
before = len(turns)
go.set()
for _ in range(5):
    work.add_job()
for _ in range(7):
    assert done.acquire(timeout=30)
assert pool.stop(30) == []
assert lost == []
assert len(turns) - before < 50, f"the listener spins: {len(turns) - before} turns"
queue.close()
"""


def test_a_child_that_stops_its_parents_pool_does_nothing(queue: Queue, tmp_path: Path, migrated_url: str) -> None:
    run(STOPPING_IN_THE_CHILD, tmp_path, migrated_url)
    assert len(queue.jobs()) == 0


FORKING_WHILE_A_THREAD_WAITS = """
import os, sys, threading
import psycopg
from graphile_worker_py import Queue

queue = Queue(sys.argv[1])
job = queue.add_job("task")
listening = "select pid from pg_stat_activity where query like 'listen %graphile_worker_py:over%'"
observer = psycopg.connect(sys.argv[1], autocommit=True)

def wait():
    queue.wait_for(job)
    print("the parent's thread knows")

thread = threading.Thread(target=wait)
thread.start()
while not (listeners := observer.execute(listening).fetchall()):
    pass
child = os.fork()
if not child:
    try:
        queue.wait_for(job, 0.3)
    except TimeoutError:
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert listeners[0] in observer.execute(listening).fetchall()  # beside the child's, which may not have ended yet
observer.close()
queue.complete_jobs([job.id])
thread.join()
queue.close()
"""


def test_a_child_waits_for_itself_while_the_parent_waits(queue: Queue, tmp_path: Path, migrated_url: str) -> None:
    assert run(FORKING_WHILE_A_THREAD_WAITS, tmp_path, migrated_url) == "the parent's thread knows\n"
