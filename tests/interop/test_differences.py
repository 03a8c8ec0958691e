"""Each difference in the table of docs/beside-node.md, shown on both sides: it is as we say, and it is still there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from plain_sql import blocked, connect, eventually
from psycopg import IsolationLevel

from interop import differences
from interop.replay import NODE, OURS, on

pytestmark = pytest.mark.usefixtures("packages")

ADD = "select payload::text from SIDE.add_job({})"
ADD_MANY = "select payload::text from SIDE.add_jobs(array[{}]::SIDE.job_spec[])"
KEYS = "select key, payload::text, attempts < max_attempts as alive from SIDE._private_jobs order by id"
LOCK = "update SIDE._private_jobs set locked_at = now(), locked_by = 'worker', attempts = attempts + 1"
UNLOCK = "update SIDE._private_jobs set locked_at = null, locked_by = null"


def keyed(payload: int, key: str) -> str:
    return f"row('task', '{payload}', null, null, null, '{key}', null, null)"


class Stage:
    """One of the two schemas, with as many connections as a scene needs."""

    def __init__(self, url: str, side: str, stack: ExitStack) -> None:
        self._url = url
        self.side = side
        self._stack = stack
        self._main = self.connect()

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        return self._stack.enter_context(connect(self._url))

    def run(self, statement: str, connection: psycopg.Connection[Any] | None = None) -> list[Any] | str:
        """Return the rows, each as a list, or the SQLSTATE."""
        try:
            cursor = (connection or self._main).execute(on(self.side, statement))
        except psycopg.Error as error:
            return error.sqlstate or ""
        return [list(row.values()) for row in cursor] if cursor.description else []

    @contextmanager
    def meanwhile(self, *statements: str) -> Iterator[None]:
        """Have done these, in a transaction that ends with the block."""
        connection = self.connect()
        with connection.transaction():
            for statement in statements:
                connection.execute(on(self.side, statement))
            yield

    def waiting(self, statement: str) -> Future[list[Any] | str]:
        """Start a statement that has to wait for somebody, and return once it does."""
        connection = self.connect()
        future = self._stack.enter_context(ThreadPoolExecutor(1)).submit(self.run, statement, connection)
        eventually(lambda: blocked(self._main, connection.info.backend_pid) or future.done())
        assert not future.done(), f"it did not wait: {future.result()}"
        return future

    @contextmanager
    def snapshot(self) -> Iterator[Callable[[str], list[Any] | str]]:
        """Return a function that runs a statement in a transaction that sees the database as it is now."""
        connection = self.connect()
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            self.run("select count(*) from SIDE._private_jobs", connection)
            yield lambda statement: self.run(statement, connection)


def keyed_race(stage: Stage) -> object:
    seen = []
    for call in (ADD.format("'task', '2', job_key => 'k'"), ADD_MANY.format(keyed(2, "k"))):
        stage.run("delete from SIDE._private_jobs")
        stage.run(ADD.format("'task', '1', job_key => 'k'"))
        with stage.meanwhile(LOCK):
            late = stage.waiting(call)
        seen.append((late.result(timeout=30), stage.run(KEYS)))
    return seen


def name_race(stage: Stage) -> object:
    stage.run("insert into SIDE._private_tasks (identifier) values ('task')")
    with stage.meanwhile("insert into SIDE._private_job_queues (queue_name) values ('q')"):
        late = stage.waiting(ADD.format("'task', '1', queue_name => 'q'"))
        stage.run("delete from SIDE._private_tasks")
    return late.result(timeout=30), stage.run("select task_identifier, queue_name from SIDE.jobs")


def name_race_in_snapshot(stage: Stage) -> object:
    stage.run("insert into SIDE._private_tasks (identifier) values ('task')")
    with stage.snapshot() as run:
        stage.run("delete from SIDE._private_tasks")
        answer = run(ADD.format("'task', '1'"))
    return answer, stage.run("select count(*) from SIDE._private_jobs"), stage.run("select count(*) from SIDE.jobs")


def remove_race(stage: Stage) -> object:
    seen = []
    for act in (UNLOCK, ADD.format("'task', '2', job_key => 'k'")):
        stage.run("delete from SIDE._private_jobs")
        stage.run(ADD.format("'task', '1', job_key => 'k'"))
        stage.run(LOCK)
        with stage.meanwhile(act):
            late = stage.waiting("select payload::text from SIDE.remove_job('k')")
        seen.append((late.result(timeout=30), stage.run(KEYS)))
    return seen


def keys_in_order(stage: Stage) -> object:
    stage.run(ADD_MANY.format(", ".join(keyed(1, key) for key in "klm")))
    with stage.meanwhile("select from SIDE._private_jobs where key = 'm' for update"):
        calls = [stage.waiting(ADD_MANY.format(", ".join(keyed(2, key) for key in keys))) for keys in ("kml", "lmk")]
    return sorted("40P01" if call.result(timeout=30) == "40P01" else "added" for call in calls)


def specs_in_order(stage: Stage) -> object:
    # Many names, as the planner knows: it looks through them once instead of once for each spec.
    stage.run("insert into SIDE._private_tasks (identifier) select 'task ' || n from generate_series(1, 300) as n")
    stage.run("analyze SIDE._private_tasks")
    specs = ", ".join(f"row('task {n}', '{n}', null, null, null, null, null, null)" for n in (2, 3, 1))
    order = [["2"], ["3"], ["1"]]
    returned = stage.run(ADD_MANY.format(specs))
    return returned == order, stage.run("select payload::text from SIDE._private_jobs order by id") == order


def nested_specs(stage: Stage) -> object:
    spec = "row('task', '{}', null, null, null, null, null, null)"
    listener = stage.connect()
    listener.execute('listen "jobs:insert"')
    nested = f"array[{spec.format(1)}, {spec.format(2)}], array[{spec.format(3)}, {spec.format(4)}]"
    stage.run(ADD_MANY.format(nested))
    (notification,) = listener.notifies(timeout=30, stop_after=1)
    return stage.run("select count(*) from SIDE.jobs"), notification.payload.partition('"count":')[2]


def first_mistake(stage: Stage) -> object:
    mistakes = ("priority => 40000", "flags => array[null]", "priority => 40000, flags => array[null]")
    return [stage.run(ADD.format(f"'task', {mistake}")) for mistake in mistakes]


def burned_by_failure(stage: Stage) -> object:
    assert stage.run(ADD.format("'task', flags => array[null]")) == "22023"
    stage.run(ADD.format("'task'"))
    return stage.run("select id from SIDE._private_tasks")


def error_text(stage: Stage) -> object:
    with pytest.raises(psycopg.Error) as caught:
        stage.connect().execute(on(stage.side, ADD.format("'task', job_key => 'k', job_key_mode => 'none'")))
    return caught.value.sqlstate, caught.value.diag.message_primary


LOST: list[Any] = [[None]]

# Name: the scene, what is seen of it on Node's side, and on ours.
SCENES: dict[str, tuple[Callable[[Stage], object], object, object]] = {
    "keyed-race": (
        keyed_race,
        [(LOST, [["k", "1", True]]), ([], [["k", "1", True]])],
        [([["2"]], [[None, "1", False], ["k", "2", True]])] * 2,
    ),
    "name-race": (name_race, (LOST, []), ([["1"]], [["task", "q"]])),
    "name-race-in-snapshot": (name_race_in_snapshot, ([["1"]], [[1]], [[0]]), ("40001", [[0]], [[0]])),
    "remove-race": (
        remove_race,
        [([["1"]], [[None, "1", False]]), (LOST, [[None, "1", False], ["k", "2", True]])],
        [([["1"]], []), ([["2"]], [[None, "1", False]])],
    ),
    "keys-in-order": (keys_in_order, ["40P01", "added"], ["added", "added"]),
    "specs-in-order": (specs_in_order, (False, False), (True, True)),
    "nested-specs": (nested_specs, ([[4]], "2}"), ([[4]], "4}")),
    "first-mistake": (first_mistake, ["22003", "22023", "22003"], ["22003", "22023", "22023"]),
    "burned-by-failure": (burned_by_failure, [[2]], [[1]]),
    "error-text": (
        error_text,
        ("GWBKM", "Invalid job_key_mode value, expected 'replace', 'preserve_run_at' or 'unsafe_dedupe'."),
        ("GWBKM", "job_key_mode: expected replace, preserve_run_at or unsafe_dedupe, got none"),
    ),
}


@pytest.mark.parametrize("name", sorted(set(SCENES) | set(differences.documented())))
def test_each_difference_is_what_the_table_says(both_url: str, name: str) -> None:
    assert name in differences.documented(), "not in the table"
    assert name in SCENES, "in the table, but not shown here"
    scene, *answers = SCENES[name]
    for side, answer in zip((NODE, OURS), answers, strict=True):
        with ExitStack() as stack:
            assert scene(Stage(both_url, side, stack)) == answer, side


def test_what_sequences_may_show_is_in_the_table() -> None:
    assert set(differences.REPLAYED) <= set(differences.documented())
