"""Queue, as its users see it: what add_job stores and returns, job keys, tasks' defaults, quick_add_job, the schema.

Many at once are in test_add_jobs.py, administration in test_administration.py, connections in test_connections.py
and test_own_connection.py.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from plain_sql import eventually
from psycopg import sql

from graphile_worker_py import (
    InvalidJobSpec,
    InvalidSchemaName,
    Job,
    JobSpec,
    NotSupported,
    Queue,
    SchemaMissing,
    quick_add_job,
)

LATER = datetime(2031, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
SOONER = datetime(2030, 1, 1, tzinfo=timezone.utc)


def change(db: psycopg.Connection, job: Job, what: str) -> None:
    db.execute(f"update graphile_worker._private_jobs set {what} where id = {job.id}")  # noqa: S608


LOCKED = "locked_at = now(), locked_by = 'w', attempts = attempts + 1"
DEAD = "attempts = max_attempts, last_error = 'no'"


# What is stored, and returned.


def test_a_job_with_nothing_said_has_the_defaults(queue: Queue, db: psycopg.Connection) -> None:
    job = queue.add_job("task")
    (now,) = db.execute("select now()").fetchone()
    assert now - timedelta(minutes=1) < job.run_at == job.created_at == job.updated_at <= now
    assert (job.task_identifier, job.payload, job.raw_payload, job.queue_name) == ("task", {}, "{}", None)
    assert (job.priority, job.attempts, job.max_attempts, job.last_error) == (0, 0, 25, None)
    assert (job.key, job.locked_at, job.locked_by, job.revision, job.flags) == (None, None, None, 0, ())
    assert queue.job(job.id) == job


def everything(add: Callable[..., Job]) -> Job:
    return add(
        payload={"to": ["Zoë"]},
        queue_name="mail",
        run_at=LATER,
        priority=-7,
        max_attempts=3,
        job_key="key",
        flags=["b", "a"],
    )


def test_every_argument_is_stored_and_returned(queue: Queue, db: psycopg.Connection, migrated_url: str) -> None:
    task = queue.task("task")(print)
    ways: list[Callable[..., Job]] = [
        task.add_job,
        lambda **spec: queue.add_job("task", **spec),
        lambda **spec: queue.add_jobs([JobSpec("task", **spec)])[0],
        lambda **spec: quick_add_job(migrated_url, "task", **spec),
    ]
    for add in ways:
        job = everything(add)
        assert (job.task_identifier, job.payload, job.raw_payload) == ("task", {"to": ["Zoë"]}, '{"to":["Zoë"]}')
        assert (job.queue_name, job.run_at, job.priority, job.max_attempts) == ("mail", LATER, -7, 3)
        assert (job.key, job.flags, job.attempts, job.revision) == ("key", ("a", "b"), 0, 0)
        assert queue.job(job.id) == job
        (queue_id,) = db.execute("select id from graphile_worker._private_job_queues").fetchone()
        assert job.job_queue_id == queue_id
        assert queue.remove_job("key") == job


def test_a_list_is_stored_as_a_batch(queue: Queue) -> None:
    assert queue.add_job("task", [1, {"a": 2}]).payload == [1, {"a": 2}]


# Job keys.


def test_replace_is_the_default_mode_and_forgets_what_was_asked_before(queue: Queue) -> None:
    old = everything(lambda **spec: queue.add_job("old", **spec))
    new = queue.add_job("new", {"b": 1}, job_key="key")
    assert (new.id, new.revision, new.task_identifier, new.payload) == (old.id, 1, "new", {"b": 1})
    assert (new.queue_name, new.priority, new.max_attempts, new.flags) == (None, 0, 25, ())
    assert (new.created_at, new.run_at) == (old.created_at, new.updated_at)
    assert [info.id for info in queue.jobs()] == [old.id]
    assert queue.job(old.id) == new


def test_replace_can_be_said(queue: Queue) -> None:
    queue.add_job("task", job_key="k", run_at=SOONER)
    assert queue.add_job("task", job_key="k", job_key_mode="replace", run_at=LATER).run_at == LATER


@pytest.mark.parametrize(("attempts", "kept"), [(0, SOONER), (1, LATER)])
def test_preserve_run_at_keeps_it_while_nothing_was_attempted(
    queue: Queue, db: psycopg.Connection, attempts: int, kept: datetime
) -> None:
    old = queue.add_job("task", 1, job_key="k", run_at=SOONER)
    change(db, old, f"attempts = {attempts}, last_error = 'no'")
    new = queue.add_job("task", 2, job_key="k", job_key_mode="preserve_run_at", run_at=LATER)
    assert (new.id, new.payload, new.run_at, new.attempts, new.last_error) == (old.id, 2, kept, 0, None)


@pytest.mark.parametrize("state", ["attempts = 0", LOCKED, DEAD])
def test_unsafe_dedupe_returns_the_job_that_is_there(queue: Queue, db: psycopg.Connection, state: str) -> None:
    old = everything(lambda **spec: queue.add_job("old", **spec))
    change(db, old, state)
    new = queue.add_job("new", [2], job_key="key", job_key_mode="unsafe_dedupe", queue_name="other")
    assert (new.id, new.task_identifier, new.queue_name, new.payload) == (old.id, "old", "mail", {"to": ["Zoë"]})
    assert (new.revision, new.run_at) == (1, LATER)
    assert queue.job(old.id) == new


def test_unsafe_dedupe_adds_the_job_that_is_not_there(queue: Queue) -> None:
    job = queue.add_job("task", job_key="k", job_key_mode="unsafe_dedupe", queue_name="q")
    assert (job.task_identifier, job.queue_name, job.revision) == ("task", "q", 0)


@pytest.mark.parametrize("state", [LOCKED, DEAD])
def test_a_key_is_taken_from_a_job_that_runs_or_is_dead(queue: Queue, db: psycopg.Connection, state: str) -> None:
    old = queue.add_job("task", [1], job_key="k")
    change(db, old, state)
    new = queue.add_job("task", [2], job_key="k")
    assert new.id != old.id
    assert (new.payload, new.key, new.revision) == ([2], "k", 0)
    assert queue.job(old.id).key is None
    assert queue.job(old.id).attempts == 25


MERGES: list[tuple[Any, Any, Any]] = [
    ([1], [2], [1, 2]),
    ([], [[1]], [[1]]),
    ([1], {"a": 1}, {"a": 1}),
    ({"a": 1}, [1], [1]),
    ([1], None, {}),
    ([1], 2, 2),
]


@pytest.mark.parametrize("add", ["add_job", "add_jobs"])
def test_lists_of_one_key_grow_and_everything_else_is_replaced(queue: Queue, add: str) -> None:
    for number, (old, new, merged) in enumerate(MERGES):
        key = f"k{number}"
        queue.add_job("task", old, job_key=key)
        if add == "add_job":
            job = queue.add_job("task", new, job_key=key)
        else:
            (job,) = queue.add_jobs([JobSpec("task", new, job_key=key)])
        assert job.payload == merged
        assert queue.job(job.id) == job


# Defaults of tasks.


def test_a_tasks_options_hold_for_its_jobs_unless_said_otherwise(queue: Queue) -> None:
    task = queue.task("task", queue_name="q", priority=5, max_attempts=2, flags=["f"])(print)
    for job in (task.add_job(), queue.add_job("task"), *queue.add_jobs([JobSpec("task")])):
        assert (job.queue_name, job.priority, job.max_attempts, job.flags) == ("q", 5, 2, ("f",))
    other = {"queue_name": "", "priority": 0, "max_attempts": 25, "flags": []}
    for job in (task.add_job(**other), queue.add_job("task", **other), *queue.add_jobs([JobSpec("task", **other)])):
        assert (job.queue_name, job.priority, job.max_attempts, job.flags) == ("", 0, 25, ())
    assert queue.add_job("another").priority == 0


def test_an_included_tasks_options_hold_too(queue: Queue, migrated_url: str) -> None:
    with Queue(migrated_url) as library:
        library.task("task", priority=5)(print)
        queue.include(library.tasks)
        assert queue.add_job("task").priority == 5


# quick_add_job.


def test_quick_add_job_leaves_no_connection(migrated_url: str, db: psycopg.Connection) -> None:
    assert quick_add_job(migrated_url, "task", [1]).payload == [1]
    with pytest.raises(InvalidJobSpec, match=r"^priority: "):
        quick_add_job(migrated_url, "task", priority=10**6)
    ours = "select from pg_stat_activity where datname = current_database() and application_name ~ 'graphile'"
    eventually(lambda: not db.execute(ours).fetchall())  # a server process takes a moment to end


def test_quick_add_job_reads_the_environment(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    assert quick_add_job(None, "task").id == 1


# The schema.

SCHEMAS = [
    "percent % %s %%",
    'a "quoted" name',
    "Upper",
    "{braces} {schema}",
    "$1 $$ ; --",
    "select",
    "é雪😀",
    "a" * 63,
]


def test_any_name_of_a_schema_serves_the_whole_queue(database_url: str) -> None:
    for schema in SCHEMAS:
        use_everything(database_url, schema)


def use_everything(database_url: str, schema: str) -> None:
    with Queue(database_url, schema=schema) as queue:
        queue.migrate()
        one, two = queue.add_job("task", [1], job_key="a", queue_name="q"), queue.add_job("task", job_key="b")
        (merged,) = queue.add_jobs([JobSpec("task", [2], job_key="a", run_at=timedelta(0))])
        assert (merged.id, merged.payload) == (one.id, [1, 2])
        assert queue.remove_job("b") == two
        assert [info.state for info in queue.jobs(task="task", queue_name=None)] == ["ready"]
        assert queue.job(one.id) == merged
        assert queue.reschedule_jobs([one.id], priority=1)[0].priority == 1
        assert queue.permanently_fail_jobs([one.id])[0].attempts == 25
        assert queue.stats()[0].failed == 1
        assert queue.complete_jobs([one.id])[0].id == one.id
        queue.force_unlock_workers(["w"])
        cleaned = queue.cleanup(["DELETE_PERMAFAILED_JOBS", "GC_JOB_QUEUES", "GC_TASK_IDENTIFIERS"])
        assert cleaned == {"DELETE_PERMAFAILED_JOBS": 0, "GC_TASK_IDENTIFIERS": 1, "GC_JOB_QUEUES": 1}
    with psycopg.connect(database_url) as connection:
        query = sql.SQL("select count(*) from {}.migrations").format(sql.Identifier(schema))
        assert connection.execute(query).fetchone() == (20,)
    assert quick_add_job(database_url, "task", schema=schema).task_identifier == "task"


@pytest.mark.parametrize(
    "schema", ["", "a" * 64, "é" * 32, "a\x00", "\ud800", "pg_toast", 5, b"a", "$graphile_worker_py$"]
)
def test_a_schema_postgresql_would_not_take_is_refused_at_once(schema: Any) -> None:
    with pytest.raises(InvalidSchemaName, match=r"^schema: "):
        Queue("", schema=schema)


def uses(queue: Queue) -> list[Callable[..., object]]:
    """Return every way to use the tables."""
    return [
        lambda **given: queue.add_job("task", **given),
        lambda **given: queue.add_jobs([JobSpec("task")], **given),
        lambda **given: queue.remove_job("k", **given),
        lambda **given: queue.complete_jobs([1], **given),
        lambda **given: queue.permanently_fail_jobs([1], **given),
        lambda **given: queue.reschedule_jobs([1], **given),
        lambda **given: queue.force_unlock_workers(["w"], **given),
        queue.cleanup,
        queue.jobs,
        lambda: queue.job(1),
        queue.stats,
    ]


@pytest.mark.parametrize("half_made", [False, True])
def test_a_missing_schema_says_what_to_run(database_url: str, half_made: bool) -> None:
    with Queue(database_url) as queue:
        if half_made:
            with psycopg.connect(database_url) as connection:
                connection.execute("create schema graphile_worker")
        for use in uses(queue):
            with pytest.raises(SchemaMissing, match=r"'graphile_worker' is not installed here.*queue\.migrate\(\)"):
                use()
        queue.migrate()
        assert queue.add_job("task").id == 1


def test_a_missing_schema_is_told_in_a_pipeline_too(database_url: str) -> None:
    with psycopg.connect(database_url) as connection, Queue(database_url) as queue:
        for use in uses(queue)[:7]:
            with pytest.raises(SchemaMissing), connection.pipeline():
                use(connection=connection)
            connection.rollback()


def test_a_role_without_the_privilege_is_told_which_one_has_it(migrated_url: str) -> None:
    expected = r"'graphile_worker' \(permission denied for .*\): connect as the role that installed it"
    with Queue(psycopg.conninfo.make_conninfo(migrated_url, options="-c role=pg_monitor")) as queue:
        for use in uses(queue):
            with pytest.raises(NotSupported, match=expected) as caught:
                use()
            assert isinstance(caught.value.__cause__, psycopg.errors.InsufficientPrivilege)


def test_the_schema_may_come_from_the_environment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHILE_WORKER_SCHEMA", "From Env")
    assert Queue(database_url).schema == "From Env"
    assert Queue(database_url, schema="said").schema == "said"
    monkeypatch.setenv("GRAPHILE_WORKER_SCHEMA", "")
    assert Queue(database_url).schema == "graphile_worker"
    monkeypatch.setenv("GRAPHILE_WORKER_SCHEMA", "pg_x")
    with pytest.raises(InvalidSchemaName):
        Queue(database_url)


def test_a_queue_says_what_it_is_but_not_where(migrated_url: str) -> None:
    assert repr(Queue(f"{migrated_url} password=sesame")) == "<Queue schema='graphile_worker' tasks=0>"
