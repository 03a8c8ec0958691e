"""connection=: a job added in the caller's own transaction appears and vanishes with it, whatever the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from graphile_worker_py import InvalidJobSpec, Job, JobSpec, Queue


@pytest.fixture
def own(migrated_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Return the caller's connection, as psycopg makes it: a transaction begins by itself."""
    with psycopg.connect(migrated_url) as connection:
        yield connection


def stored(queue: Queue) -> list[str]:
    return [info.task_identifier for info in queue.jobs()]


def by_add_job(queue: Queue, name: str, payload: Any = None, **options: Any) -> Job:
    return queue.add_job(name, payload, **options)


def by_add_jobs(queue: Queue, name: str, payload: Any = None, *, connection: object, **options: Any) -> Job:
    return queue.add_jobs([JobSpec(name, payload, **options)], connection=connection)[0]


Adding = Callable[..., Job]
either = pytest.mark.parametrize("add", [by_add_job, by_add_jobs])


@either
@pytest.mark.parametrize("what", ["connection", "cursor", "dict cursor"])
def test_a_job_appears_with_the_commit(queue: Queue, own: psycopg.Connection, add: Adding, what: str) -> None:
    given = {"connection": own, "cursor": own.cursor(), "dict cursor": own.cursor(row_factory=dict_row)}[what]
    job = add(queue, "task", {"a": 1}, connection=given)
    assert (job.task_identifier, job.payload) == ("task", {"a": 1})
    assert own.info.transaction_status == TransactionStatus.INTRANS
    assert stored(queue) == []
    own.commit()
    assert queue.job(job.id) == job


@either
def test_a_job_vanishes_with_the_rollback(queue: Queue, own: psycopg.Connection, add: Adding) -> None:
    add(queue, "task", connection=own)
    own.rollback()
    assert stored(queue) == []
    assert own.info.transaction_status == TransactionStatus.IDLE


@either
def test_in_autocommit_a_job_is_there_at_once(queue: Queue, db: psycopg.Connection, add: Adding) -> None:
    add(queue, "task", connection=db)
    assert stored(queue) == ["task"]
    assert db.info.transaction_status == TransactionStatus.IDLE


@either
@pytest.mark.parametrize("autocommit", [False, True])
def test_a_transaction_block_takes_the_job_along(
    queue: Queue, own: psycopg.Connection, add: Adding, autocommit: bool
) -> None:
    own.autocommit = autocommit
    with own.transaction():
        add(queue, "outer", connection=own)
        with own.transaction(force_rollback=True):
            add(queue, "inner", connection=own)
        assert stored(queue) == []
    assert stored(queue) == ["outer"]


@pytest.mark.parametrize("autocommit", [False, True])
def test_administration_is_part_of_the_transaction_too(
    queue: Queue, own: psycopg.Connection, db: psycopg.Connection, autocommit: bool
) -> None:
    ids = [queue.add_job("task", job_key=f"k{index}", priority=1).id for index in range(4)]
    db.execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w' where key = 'k3'")
    before = [queue.job(id) for id in ids]
    own.autocommit = autocommit
    with own.transaction(force_rollback=True):
        assert queue.remove_job("k0", connection=own) == before[0]
        assert queue.complete_jobs(ids[1:2], connection=own) == before[1:2]
        assert queue.permanently_fail_jobs(ids[2:3], "no", connection=own)[0].last_error == "no"
        queue.force_unlock_workers(["w"], connection=own)
        assert queue.reschedule_jobs(ids[3:], priority=0, connection=own)[0].priority == 0
        assert [queue.job(id) for id in ids] == before
    assert [queue.job(id) for id in ids] == before


REFUSED: list[Callable[[Queue, psycopg.Connection], object]] = [
    lambda queue, own: queue.add_job("task", float("nan"), connection=own),
    lambda queue, own: queue.add_job("task", job_key_mode="replace", connection=own),
    lambda queue, own: queue.add_job("雪", connection=own),
    lambda queue, own: queue.add_jobs([JobSpec("task"), None], connection=own),
    lambda queue, own: queue.add_jobs((JobSpec("task", priority=n) for n in (0, 10**6)), connection=own),
    lambda queue, own: queue.remove_job("", connection=own),
    lambda queue, own: queue.complete_jobs(["1"], connection=own),
    lambda queue, own: queue.reschedule_jobs([1], priority="1", connection=own),
]


def test_a_refusal_leaves_the_transaction_usable(queue: Queue, own: psycopg.Connection) -> None:
    own.execute("set client_encoding to latin1")
    for refused in REFUSED:
        queue.add_job("before", connection=own)
        with pytest.raises(InvalidJobSpec):
            refused(queue, own)
        queue.add_job("after", connection=own)
    own.commit()
    assert stored(queue) == ["before", "after"] * len(REFUSED)


# Kinds of connections.


WAYS: list[dict[str, Any]] = [
    {"row_factory": dict_row},
    {"prepare_threshold": None},
    {"prepare_threshold": 0},
    {"cursor_factory": psycopg.ClientCursor},
    {"cursor_factory": psycopg.RawCursor},
]


@either
def test_a_connection_keeps_its_ways(queue: Queue, migrated_url: str, add: Adding) -> None:
    for options in WAYS:
        with psycopg.connect(migrated_url, **options) as own:
            jobs = [add(queue, "task", [index], job_key="k", connection=own) for index in range(7)]
            assert jobs[-1].payload == list(range(7))
            assert {name: getattr(own, name) for name in options} == options
        assert queue.remove_job("k") == jobs[-1]


SETTINGS = [
    "timezone to 'America/St_Johns'",
    "timezone to 'Asia/Kathmandu'",
    "datestyle to 'German, DMY'",
    "intervalstyle to sql_standard",
    "search_path to ''",
    "search_path to other, public",
    "client_encoding to latin1",
    "default_transaction_isolation to serializable",
    "standard_conforming_strings to off",
    "extra_float_digits to 0",
    "bytea_output to escape",
    "lc_messages to 'C'",
]


@either
def test_the_settings_of_a_session_change_nothing(queue: Queue, migrated_url: str, add: Adding) -> None:
    for setting in SETTINGS:
        with psycopg.connect(migrated_url) as own:
            own.execute(f"set {setting}")
            own.commit()
            job = add(queue, "tásk", {"é": 'back\\slash "'}, run_at=timedelta(days=-300, seconds=-1), connection=own)
        assert queue.job(job.id) == job, setting
        assert job.run_at == job.created_at + timedelta(days=-300, seconds=-1), setting


@either
def test_tables_of_the_same_names_in_the_search_path_are_not_used(
    queue: Queue, own: psycopg.Connection, add: Adding
) -> None:
    own.execute("create schema other")
    own.execute("create table other._private_jobs (id bigint)")
    own.execute("create function other.now() returns timestamptz language sql as $$ select timestamptz 'epoch' $$")
    own.execute("create function other.add_job(identifier text) returns int language sql as $$ select 1 $$")
    own.execute("set search_path to other")
    assert add(queue, "task", run_at=timedelta(0), connection=own).run_at.year > 2000


@either
def test_in_a_pipeline_the_job_is_returned_as_well(queue: Queue, own: psycopg.Connection, add: Adding) -> None:
    for autocommit in (False, True):
        own.autocommit = autocommit
        with own.pipeline():
            own.execute("create table before (id int)")
            job = add(queue, "task", [1], connection=own)
            assert job.payload == [1]
            own.execute("drop table before")
            assert queue.complete_jobs([job.id], connection=own) == [job]
            job = add(queue, "task", [2], connection=own)
        own.commit()
        assert queue.job(job.id) == job


@either
def test_a_text_the_connection_cannot_carry_is_refused(queue: Queue, own: psycopg.Connection, add: Adding) -> None:
    own.execute("set client_encoding to latin1")
    for arguments in ({"payload": ["雪"]}, {"job_key": "雪"}, {"flags": ["雪"]}):
        with pytest.raises(InvalidJobSpec, match=r"^connection: .*set client_encoding to utf8"):
            add(queue, "task", connection=own, **arguments)
    own.execute("set client_encoding to sql_ascii")
    with pytest.raises(InvalidJobSpec, match=r"^connection: .*SQL_ASCII"):
        add(queue, "task", connection=own)


class Foreign:
    """A connection of some other library, which has everything but is not psycopg's."""

    closed = False
    autocommit = True

    def cursor(self) -> None:
        raise AssertionError

    execute = commit = cursor


@either
def test_what_is_no_connection_is_refused(queue: Queue, add: Adding) -> None:
    expected = r"^connection: expected an open connection or cursor of psycopg or .*; got <class '[\w.]+'>$"
    for wrong in (Foreign(), 5, True, False, "postgresql://u:sesame@host/db", psycopg, Foreign):
        with pytest.raises(InvalidJobSpec, match=expected) as caught:
            add(queue, "task", connection=wrong)
        assert "sesame" not in str(caught.value)


@either
def test_a_closed_connection_is_refused(queue: Queue, own: psycopg.Connection, add: Adding) -> None:
    cursor = own.cursor()
    own.close()
    for given in (own, cursor):
        with pytest.raises(InvalidJobSpec, match=r"^connection: this one is closed"):
            add(queue, "task", connection=given)


@either
def test_an_asynchronous_connection_is_refused(queue: Queue, migrated_url: str, add: Adding) -> None:
    async def refused() -> None:
        async with await psycopg.AsyncConnection.connect(migrated_url) as own:
            for given in (own, own.cursor()):
                with pytest.raises(InvalidJobSpec, match=r"^connection: .*an asynchronous one cannot be used"):
                    add(queue, "task", connection=given)

    asyncio.run(refused())


@either
def test_a_transaction_that_failed_before_is_left_to_its_owner(
    queue: Queue, own: psycopg.Connection, add: Adding
) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        own.execute("select * from nothing")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        add(queue, "task", connection=own)
    assert own.info.transaction_status == TransactionStatus.INERROR


def test_a_key_clash_does_not_abort_the_transaction(queue: Queue, own: psycopg.Connection) -> None:
    old = queue.add_job("task", [1], job_key="k")
    assert queue.add_job("task", [2], job_key="k", connection=own).payload == [1, 2]
    assert queue.add_job("task", [3], job_key="k", job_key_mode="unsafe_dedupe", connection=own).id == old.id
    assert queue.add_jobs([JobSpec("task", [4], job_key="k")], connection=own)[0].payload == [1, 2, 4]
    own.commit()
    assert queue.job(old.id).payload == [1, 2, 4]
