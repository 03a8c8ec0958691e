"""Keyed adds against workers, against each other and against snapshots: no request is lost, none waits in a circle.

A worker is played by a connection that holds what a claim holds, an uncommitted lock on the job, until the
caller is seen waiting for it; so the race happens every time, and not now and then.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from plain_sql import LOCKED, Connection, Row, add, add_jobs, blocked, call, change, connect, eventually, stored
from psycopg import errors as pg

CLAIM = "locked_at = now(), locked_by = 'w', attempts = attempts + 1"
REPEATABLE_READ = "begin isolation level repeatable read"
SERIALIZABLE = "begin isolation level serializable"

either = pytest.mark.parametrize("function", ["add_job", "add_jobs"])


class Clients:
    """Connections and threads of one test; the threads end with it, and the connections are closed."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url = url
        self._stack = stack
        self._threads = stack.enter_context(ThreadPoolExecutor(8))
        self.db = self.open()

    def open(self) -> Connection:
        return self._stack.enter_context(connect(self._url))

    def start(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self._threads.submit(work, *arguments)

    def waiting(self, caller: Connection, work: Callable[[], Any]) -> Future[Any]:
        """Start work that uses the connection `caller`, and return once it waits for a lock."""
        future = self.start(work)
        eventually(lambda: future.done() or blocked(self.db, caller.info.backend_pid))
        assert not future.done(), future.result()
        return future


@pytest.fixture
def clients(migrated_url: str) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(migrated_url, stack)


@pytest.fixture
def db(clients: Clients) -> Connection:
    return clients.db


def by_either(function: str, db: Connection, **spec: Any) -> Row:
    (job,) = [add(db, **spec)] if function == "add_job" else add_jobs(db, spec)
    return job


def ended(future: Future[Any]) -> Any:
    return future.result(timeout=30)


# A worker is faster.

FAIL = """
    update graphile_worker._private_jobs
    set locked_at = null, locked_by = null, last_error = 'no', run_at = now() + interval '1 hour'
"""
COMPLETE = "delete from graphile_worker._private_jobs"


def overtaken(function: str, clients: Clients, old: Row, *statements: str) -> Row:
    """Ask for the key "k" while a worker has claimed its job; once the caller waits, let the worker go on."""
    worker, caller = clients.open(), clients.open()
    worker.execute("begin")
    change(worker, old, CLAIM)
    future = clients.waiting(caller, lambda: by_either(function, caller, payload="[2]", job_key="k"))
    for statement in statements:
        worker.execute(statement)
    return ended(future)


@either
def test_the_worker_takes_the_job(db: Connection, clients: Clients, function: str) -> None:
    old = add(db, payload="[1]", job_key="k", max_attempts=3)
    new = overtaken(function, clients, old, "commit")
    assert (new["id"] > old["id"], new["payload"], new["key"], new["revision"]) == (True, [2], "k", 0)
    running = stored(db, old)
    assert (running["key"], running["attempts"], running["locked_by"], running["payload"]) == (None, 3, "w", [1])


@either
def test_the_worker_completes_the_job(db: Connection, clients: Clients, function: str) -> None:
    old = add(db, payload="[1]", job_key="k")
    new = overtaken(function, clients, old, COMPLETE, "commit")
    assert (new["id"] > old["id"], new["payload"], new["revision"], stored(db, old)) == (True, [2], 0, None)


@either
@pytest.mark.parametrize("state", ["attempts = 0", CLAIM])
def test_the_worker_fails_the_job_and_it_waits_again(
    db: Connection, clients: Clients, function: str, state: str
) -> None:
    """The caller has seen the job waiting, or running; either way it waits again before the caller goes on."""
    old = change(db, add(db, payload="[1]", job_key="k"), state)
    new = overtaken(function, clients, old, FAIL, "commit")
    assert (new["id"], new["payload"], new["attempts"], new["last_error"]) == (old["id"], [1, 2], 0, None)
    assert (new["revision"], new["locked_at"]) == (1, None)


@either
def test_the_worker_fails_the_job_for_good(db: Connection, clients: Clients, function: str) -> None:
    """A row that was waiting when the caller looked is dead when its lock is free; it is left as it is."""
    old = add(db, payload="[1]", job_key="k", max_attempts=1)
    new = overtaken(function, clients, old, FAIL, "commit")
    assert (new["id"] > old["id"], new["payload"], new["revision"]) == (True, [2], 0)
    dead = stored(db, old)
    assert (dead["key"], dead["payload"], dead["last_error"]) == (None, [1], "no")


@either
def test_the_worker_gives_the_claim_up(db: Connection, clients: Clients, function: str) -> None:
    old = add(db, payload="[1]", job_key="k")
    new = overtaken(function, clients, old, "rollback")
    assert (new["id"], new["payload"], new["revision"]) == (old["id"], [1, 2], 1)


@either
def test_the_worker_takes_a_job_that_was_not_there_at_first(db: Connection, clients: Clients, function: str) -> None:
    """The key is new to the caller's first look; when the insert meets it, its job runs already."""
    worker, caller = clients.open(), clients.open()
    worker.execute("begin")
    old = add(worker, payload="[1]", job_key="k")
    change(worker, old, CLAIM)
    future = clients.waiting(caller, lambda: by_either(function, caller, payload="[2]", job_key="k"))
    worker.execute("commit")
    new = ended(future)
    assert (new["id"] > old["id"], new["payload"], new["revision"]) == (True, [2], 0)
    assert (stored(db, old)["key"], stored(db, old)["locked_by"]) == (None, "w")


def test_only_what_lost_the_race_is_added_again(db: Connection, clients: Clients) -> None:
    """Two of the keys run by the time they are met; the rows keep the order of the specs, each is there once."""
    waits = add(db, payload="[0]", job_key="waits")
    worker, caller = clients.open(), clients.open()
    worker.execute("begin")
    for key in ("x", "a"):
        change(worker, add(worker, payload="[1]", job_key=key), CLAIM)
    keys = ["new", None, "x", "waits", None, "a", "newer", None]
    specs = [{"payload": f"[{10 + i}]", "job_key": key} for i, key in enumerate(keys)]
    future = clients.waiting(caller, lambda: add_jobs(caller, *specs))
    worker.execute("commit")
    jobs = ended(future)
    assert [job["key"] for job in jobs] == keys
    assert [job["payload"] for job in jobs] == [[0, 13] if i == 3 else [10 + i] for i in range(8)]
    assert [job["revision"] for job in jobs] == [1 if i == 3 else 0 for i in range(8)]
    assert jobs[3]["id"] == waits["id"]
    assert db.execute("select count(*) as jobs from graphile_worker.jobs").fetchone() == {"jobs": 10}


def test_unsafe_dedupe_waits_for_the_worker_and_keeps_the_job(db: Connection, clients: Clients) -> None:
    old = add(db, payload="[1]", job_key="k")
    worker, caller = clients.open(), clients.open()
    worker.execute("begin")
    change(worker, old, CLAIM)
    future = clients.waiting(caller, lambda: add(caller, payload="[2]", job_key="k", job_key_mode="unsafe_dedupe"))
    worker.execute("commit")
    same = ended(future)
    assert (same["id"], same["payload"], same["revision"], same["locked_by"]) == (old["id"], [1], 1, "w")


# Callers against each other.


@either
def test_the_same_key_at_once(db: Connection, clients: Clients, function: str) -> None:
    first, second = clients.open(), clients.open()
    first.execute("begin")
    one = by_either(function, first, payload="[1]", job_key="k")
    future = clients.waiting(second, lambda: by_either(function, second, payload="[2]", job_key="k"))
    first.execute("commit")
    two = ended(future)
    assert (two["id"], two["payload"], two["revision"]) == (one["id"], [1, 2], 1)


@either
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_same_key_at_once_while_its_job_runs(db: Connection, clients: Clients, function: str, end: str) -> None:
    running = change(db, add(db, payload="[0]", job_key="k"), LOCKED)
    first, second = clients.open(), clients.open()
    first.execute("begin")
    one = by_either(function, first, payload="[1]", job_key="k")
    future = clients.waiting(second, lambda: by_either(function, second, payload="[2]", job_key="k"))
    first.execute(end)
    two = ended(future)
    assert stored(db, running)["key"] is None
    if end == "commit":
        assert (two["id"], two["payload"], two["revision"]) == (one["id"], [1, 2], 1)
    else:
        assert (two["id"] > one["id"], two["payload"], two["revision"]) == (True, [2], 0)


@either
def test_many_wait_for_the_job_a_worker_takes(db: Connection, clients: Clients, function: str) -> None:
    old = add(db, payload="[0]", job_key="k")
    worker = clients.open()
    worker.execute("begin")
    change(worker, old, CLAIM)
    futures = []
    for i in range(1, 7):
        caller = clients.open()
        work = partial(by_either, function, caller, payload=f"[{i}]", job_key="k")
        futures.append(clients.waiting(caller, work))
    worker.execute("commit")
    found = [ended(future) for future in futures]
    assert len({job["id"] for job in found}) == 1
    assert sorted(job["revision"] for job in found) == list(range(6))
    assert sorted(stored(db, found[0])["payload"]) == [1, 2, 3, 4, 5, 6]
    assert stored(db, old)["key"] is None


def test_the_same_keys_in_another_order_do_not_wait_in_a_circle(db: Connection, clients: Clients) -> None:
    """Each of four callers gets all keys in an order of its own, again and again; a deadlock would be an error."""
    keys = [f"k{i}" for i in range(20)]
    add_jobs(db, *({"payload": "[]", "job_key": key} for key in keys))
    orders = [keys, keys[::-1], keys[10:] + keys[:10], keys[::2] + keys[1::2]]
    start = threading.Barrier(4)

    def work(caller: Connection, order: list[str]) -> None:
        start.wait(30)
        for _ in range(10):
            add_jobs(caller, *({"payload": "[1]", "job_key": key} for key in order))

    for future in [clients.start(work, clients.open(), order) for order in orders]:
        ended(future)
    lengths = db.execute("select json_array_length(payload) as n from graphile_worker._private_jobs").fetchall()
    assert lengths == [{"n": 40}] * 20


@either
def test_the_same_new_names_at_once(db: Connection, clients: Clients, function: str) -> None:
    first, second = clients.open(), clients.open()
    first.execute("begin")
    one = by_either(function, first, identifier="new", queue_name="new")
    future = clients.waiting(second, lambda: by_either(function, second, identifier="new", queue_name="new"))
    first.execute("commit")
    two = ended(future)
    assert (two["task_id"], two["job_queue_id"]) == (one["task_id"], one["job_queue_id"])


def test_nothing_is_lost_between_adders_and_workers(db: Connection, clients: Clients) -> None:
    """Four callers add to two keys while two workers claim and complete: each item is worked on once, or waits."""
    stop = threading.Event()
    query = """
        update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = attempts + 1
        where id = (select id from graphile_worker._private_jobs where is_available limit 1 for update skip locked)
        returning id, payload
    """

    def work(worker: Connection) -> list[int]:
        done: list[int] = []
        while not stop.is_set():
            for job in worker.execute(query).fetchall():
                done += job["payload"]
                worker.execute("delete from graphile_worker._private_jobs where id = %s", [job["id"]])
        return done

    def ask(caller: Connection, function: str, start: int) -> None:
        for item in range(start, start + 100):
            job = by_either(function, caller, payload=f"[{item}]", job_key=f"k{item % 2}")
            assert job["id"] is not None

    workers = [clients.start(work, clients.open()) for _ in range(2)]
    callers = [clients.start(ask, clients.open(), "add_job" if i % 2 else "add_jobs", i * 100) for i in range(4)]
    try:
        for future in callers:
            ended(future)
    finally:
        stop.set()
    done = Counter(item for future in workers for item in ended(future))
    for job in db.execute("select payload from graphile_worker._private_jobs").fetchall():
        done.update(job["payload"])
    assert done == Counter(range(400))


def test_remove_job_finds_the_row_that_took_the_place_of_the_one_it_waited_for(
    db: Connection, clients: Clients
) -> None:
    old = change(db, add(db, job_key="k"), LOCKED)
    first, second = clients.open(), clients.open()
    first.execute("begin")
    new = add(first, job_key="k")
    future = clients.waiting(second, lambda: call(second, "remove_job", job_key="k"))
    first.execute("commit")
    (removed,) = ended(future)
    assert (removed["id"], stored(db, new)) == (new["id"], None)
    assert stored(db, old)["key"] is None


# One snapshot for the whole transaction: PostgreSQL's own 40001 comes through.


@either
@pytest.mark.parametrize("begin", [REPEATABLE_READ, SERIALIZABLE])
@pytest.mark.parametrize("what", ["claim", "delete", "add"])
def test_a_snapshot_that_is_overtaken_fails(
    db: Connection, clients: Clients, function: str, begin: str, what: str
) -> None:
    old = add(db, job_key="other" if what == "add" else "k")
    caller = clients.open()
    caller.execute(begin)
    assert stored(caller, old) == old
    if what == "claim":
        change(db, old, CLAIM)
    elif what == "delete":
        db.execute("delete from graphile_worker._private_jobs")
    else:
        add(db, job_key="k")
    if (what, function) == ("delete", "add_job"):
        assert by_either(function, caller, job_key="k")["id"] > old["id"]  # nothing is in the way of an insert
    else:
        with pytest.raises(pg.SerializationFailure):
            by_either(function, caller, job_key="k")
    caller.execute("rollback")
    assert by_either(function, caller, job_key="k")["id"] is not None


@either
@pytest.mark.parametrize("begin", [REPEATABLE_READ, SERIALIZABLE])
def test_a_snapshot_that_is_not_overtaken_may_add(db: Connection, clients: Clients, function: str, begin: str) -> None:
    running = change(db, add(db, "known", queue_name="known", job_key="k"), LOCKED)
    caller = clients.open()
    caller.execute(begin)
    jobs = [
        by_either(function, caller, identifier=name, queue_name=name, job_key=key)
        for name in ("known", "new")
        for key in (None, "k", "k", "l")
    ]
    caller.execute("commit")
    assert [job["revision"] for job in jobs] == [0, 0, 1, 0, 0, 2, 3, 1]
    assert stored(db, running)["key"] is None


# Names that vanish.


@either
@pytest.mark.parametrize("table", ["_private_tasks", "_private_job_queues"])
def test_a_name_that_vanished_after_the_snapshot_fails(
    db: Connection, clients: Clients, function: str, table: str
) -> None:
    call(db, "complete_jobs", job_ids=[add(db, queue_name="q")["id"]])
    caller = clients.open()
    caller.execute(REPEATABLE_READ)
    caller.execute("select from graphile_worker.jobs")
    db.execute(f"delete from graphile_worker.{table}")  # noqa: S608
    with pytest.raises(pg.SerializationFailure):
        by_either(function, caller, queue_name="q")


@either
def test_who_would_delete_names_waits_for_who_uses_them(db: Connection, clients: Clients, function: str) -> None:
    by_either(function, db, queue_name="q")
    caller, cleaner = clients.open(), clients.open()
    caller.execute("begin")
    job = by_either(function, caller, queue_name="q")
    lock = "lock table graphile_worker._private_jobs in share row exclusive mode"
    future = clients.waiting(cleaner, lambda: cleaner.execute(f"begin; {lock}; rollback"))
    caller.execute("commit")
    ended(future)
    cleaner.execute(f"begin; {lock}")
    cleaner.execute("delete from graphile_worker._private_tasks")
    future = clients.waiting(caller, lambda: by_either(function, caller, queue_name="q"))
    cleaner.execute("commit")
    again = ended(future)
    assert again["task_id"] > job["task_id"]
