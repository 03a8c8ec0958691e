"""What a handler may do to its process, and what the worker, its other jobs and the job itself make of it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from command_line import Daemon
from plain_sql import eventually

from graphile_worker_py import Queue, WorkerPool
from graphile_worker_py.jobs import Job

Start = Callable[..., Daemon]
SILENCE = "update graphile_worker._private_py_pools set beat_at = now() - interval '61 seconds' where id = %s"

MODULE = """
import ctypes, decimal, gc, locale, os, random, resource, signal, socket, sys, threading, time
from concurrent.futures import Future
from graphile_worker_py import Queue

queue = Queue()

@queue.task
def fine(payload):
    print("fine", flush=True)

@queue.task
def leave_a_transaction_open(payload, ctx):
    pool = ctx.queue.database.pool()
    connection = pool.getconn(5)
    connection.execute("begin; lock table effects")
    pool.putconn(connection)

@queue.task
def close_a_connection(payload, ctx):
    with ctx.queue.database.connection() as connection:
        connection.close()

@queue.task
def fork_and_return(payload):
    if os.fork() == 0:
        return
    os.wait()

@queue.task
def fork_and_raise(payload):
    if os.fork() == 0:
        raise SystemExit(3)
    os.wait()

@queue.task
def change_everything_global(payload):
    locale.setlocale(locale.LC_ALL, "C")
    decimal.getcontext().prec = 1
    random.seed(0)
    os.chdir("/")
    os.environ.clear()
    os.umask(0o777)
    gc.disable()
    sys.setswitchinterval(1)
    sys.settrace(lambda *arguments: None)
    socket.setdefaulttimeout(0.001)
    time.tzset()

@queue.task
def block_signals(payload):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

@queue.task
def eat_all_memory(payload):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, limits[1]))
    try:
        eaten = []
        while True:
            eaten.append(bytearray(10_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)

@queue.task
def hold_the_interpreter(payload):
    ctypes.PyDLL(None).usleep(500_000)

@queue.task
def return_a_million_futures(payload):
    return [Future()] * 1_000_000

@queue.task
def recurse(payload):
    recurse(payload)

@queue.task
def end_threads(payload):
    for thread in set(threading.enumerate()) - {threading.main_thread()}:  # what that raises ends a program
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(ValueError))

@queue.task
def segfault(payload):
    ctypes.string_at(0)

@queue.task
def leave(payload):
    os._exit(7)
"""

FAILS = {
    "close_a_connection": "OperationalError: the connection is closed",
    "eat_all_memory": "MemoryError",
    "return_a_million_futures": "BatchResultMismatch: the handler returned 1000000 results for 1 items",
    "recurse": "RecursionError",
}
HARMLESS = [
    "leave_a_transaction_open",
    "fork_and_return",
    "fork_and_raise",
    "change_everything_global",
    "block_signals",
    "hold_the_interpreter",
]


@pytest.fixture
def start(daemon: Start, folder: Path, db: psycopg.Connection) -> Start:
    """Return a function that starts a worker on the module above."""
    (folder / "mischief.py").write_text(MODULE)
    db.execute("create table effects ()")
    return lambda *arguments: daemon(*arguments, target="mischief:queue")


def is_gone(queue: Queue, job: Job) -> bool:
    return queue.job(job.id) is None


def goes_on(worker: Daemon, queue: Queue) -> None:
    """Check that the worker runs a job as ever, and stops as ever."""
    job = queue.add_job("fine")
    eventually(lambda: is_gone(queue, job))
    worker.signal(signal.SIGTERM)
    assert worker.end()[0] == 0
    assert worker.next_line() == "fine"


@pytest.mark.parametrize("task", HARMLESS)
def test_the_worker_goes_on_and_the_job_is_done(start: Start, queue: Queue, task: str) -> None:
    worker = start("-c", "2")
    job = queue.add_job(task)
    eventually(lambda: is_gone(queue, job))
    goes_on(worker, queue)


@pytest.mark.parametrize("task", FAILS)
def test_the_worker_goes_on_and_the_job_has_failed(start: Start, queue: Queue, task: str) -> None:
    worker = start("-c", "2")
    job = queue.add_job(task, [1])

    def error() -> str:
        found = queue.job(job.id)
        assert found is not None
        return found.last_error or ""

    eventually(lambda: bool(error()))
    assert FAILS[task] in error().split("\n")[0]
    goes_on(worker, queue)


def test_exceptions_thrown_into_all_other_threads_end_none_of_them(start: Start, queue: Queue) -> None:
    start("-c", "2", "--poll-interval", "0.1")
    queue.add_job("end_threads", max_attempts=1)
    eventually(lambda: all(info.state == "failed" for info in queue.jobs()))
    for _ in range(5):
        queue.add_job("fine")
        eventually(lambda: not any(info.task_identifier == "fine" for info in queue.jobs()))


@pytest.mark.parametrize(("task", "code"), [("segfault", -signal.SIGSEGV), ("leave", 7)])
def test_a_job_that_kills_its_process_has_spent_its_attempt(
    start: Start,
    queue: Queue,
    pools: Callable[..., WorkerPool],
    db: psycopg.Connection,
    task: str,
    code: int,
) -> None:
    worker = start("-c", "1")
    job = queue.add_job(task, max_attempts=1)
    assert worker.end()[0] == code
    ((dead,),) = db.execute("select id from graphile_worker._private_py_pools").fetchall()
    queue.task("fine")(print)
    pools(1, heartbeat=0.1, dead_after=0.5)
    db.execute(SILENCE, [dead])
    eventually(lambda: next(iter(queue.jobs())).locked_at is None)
    found = queue.job(job.id)
    assert found is not None
    assert found.attempts == found.max_attempts
    assert str(found.last_error).startswith("worker vanished")
