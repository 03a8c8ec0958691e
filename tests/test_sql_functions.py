"""add_job and add_jobs as plain SQL callers see them, rule by rule of the contract (database.md 1.5 and 1.6).

Clocks are moved by rewriting timestamps. What concurrent callers do to each other is in test_sql_races.py, the
functions that administer jobs are in test_sql_admin.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from plain_sql import (
    DEAD,
    LOCKED,
    LOCKED_LONG_AGO,
    Connection,
    Ear,
    Row,
    add,
    add_jobs,
    call,
    change,
    connect,
    counts,
    stored,
)
from psycopg import errors as pg


@pytest.fixture
def db(migrated_url: str) -> Iterator[Connection]:
    with connect(migrated_url) as connection:
        yield connection


@pytest.fixture
def ear(migrated_url: str) -> Iterator[Ear]:
    with Ear(migrated_url, "jobs:insert") as ear:
        yield ear


def by_either(function: str, db: Connection, **spec: Any) -> Row:
    """Add one job by add_job or by add_jobs, where job_key_mode says whether to preserve run_at."""
    if function == "add_job":
        return add(db, **spec)
    mode = spec.pop("job_key_mode", None)
    (job,) = add_jobs(db, spec, preserve=mode == "preserve_run_at")
    return job


def now(db: Connection) -> Any:
    return db.execute("select clock_timestamp() as now").fetchone()["now"]


either = pytest.mark.parametrize("function", ["add_job", "add_jobs"])


# What is stored.


@either
def test_the_defaults_of_a_job(db: Connection, function: str) -> None:
    before = now(db)
    job = by_either(function, db, identifier="task")
    assert before <= job["run_at"] == job["created_at"] == job["updated_at"] <= now(db)
    assert {name: value for name, value in job.items() if not name.endswith("_at")} == {
        "id": 1, "job_queue_id": None, "task_id": 1, "payload": {}, "priority": 0, "attempts": 0, "max_attempts": 25,
        "last_error": None, "key": None, "locked_by": None, "revision": 0, "flags": None, "is_available": True,
    }  # fmt: skip
    assert stored(db, job) == job


@either
def test_every_argument_is_stored(db: Connection, function: str) -> None:
    spec = {"payload": '{"a":  1}', "queue_name": "", "run_at": "2031-02-03 04:05:06+00", "max_attempts": 3}
    job = by_either(function, db, **spec, job_key="key", priority=-7, flags=["b", "a", "b"])
    (shown,) = db.execute("select *, run_at at time zone 'utc' as utc from graphile_worker.jobs").fetchall()
    assert (shown["task_identifier"], shown["queue_name"], str(shown["utc"])) == ("task", "", "2031-02-03 04:05:06")
    assert (job["max_attempts"], job["key"], job["priority"]) == (3, "key", -7)
    assert (job["flags"], job["payload"]) == ({"a": True, "b": True}, {"a": 1})
    text = db.execute("select payload::text as text from graphile_worker._private_jobs").fetchone()["text"]
    assert text == '{"a":  1}'


@either
@pytest.mark.parametrize(
    ("payload", "expected"), [("null", None), ("0", 0), ('"x"', "x"), ("[]", []), (None, {}), ("false", False)]
)
def test_any_json_is_a_payload_and_none_at_all_is_an_object(
    db: Connection, function: str, payload: str | None, expected: object
) -> None:
    job = by_either(function, db, payload=payload)
    assert job["payload"] == expected
    text = db.execute("select payload::text as text from graphile_worker._private_jobs").fetchone()["text"]
    assert text == (payload or "{}")


@either
def test_no_flags_is_null_and_a_null_among_them_is_refused(db: Connection, function: str) -> None:
    assert by_either(function, db, flags=[])["flags"] is None
    with pytest.raises(psycopg.DataError, match="field name must not be null"):
        by_either(function, db, flags=["a", None])


@either
@pytest.mark.parametrize(
    ("arguments", "error", "constraint"),
    [
        ({"identifier": None}, pg.NotNullViolation, None),
        ({"identifier": "x" * 129}, pg.CheckViolation, "tasks_identifier_check"),
        ({"queue_name": "x" * 129}, pg.CheckViolation, "job_queues_queue_name_check"),
        ({"job_key": "x" * 513}, pg.CheckViolation, "jobs_key_check"),
        ({"job_key": ""}, pg.CheckViolation, "jobs_key_check"),
        ({"max_attempts": 0}, pg.CheckViolation, "jobs_max_attempts_check"),
        ({"max_attempts": 32768}, pg.NumericValueOutOfRange, None),
        ({"priority": 32768}, pg.NumericValueOutOfRange, None),
        ({"priority": -32769}, pg.NumericValueOutOfRange, None),
    ],
)
def test_limits(
    db: Connection, ear: Ear, function: str, arguments: Row, error: type[psycopg.Error], constraint: str | None
) -> None:
    for keyed in ({}, {"job_key": "k"}, {"job_key": "k", "job_key_mode": "unsafe_dedupe"}):
        with pytest.raises(error) as caught:
            by_either(function, db, **{**keyed, **arguments})
        assert caught.value.diag.constraint_name == constraint
    assert db.execute("select from graphile_worker._private_tasks").fetchall() == []
    assert ear.heard() == []


@either
def test_the_longest_names_fit(db: Connection, function: str) -> None:
    by_either(function, db, identifier="雪" * 128, queue_name="雪" * 128, job_key="雪" * 512)
    by_either(function, db, identifier="", max_attempts=32767, priority=32767)
    assert db.execute("select count(*) from graphile_worker.jobs").fetchone() == {"count": 2}


@either
def test_known_names_burn_no_identity_values(db: Connection, function: str) -> None:
    for key in [None, None, "k", "k"]:
        by_either(function, db, identifier="task", queue_name="q", job_key=key)
    by_either(function, db, identifier="other", queue_name="r")
    names = db.execute(
        "select (select last_value from graphile_worker.tasks_id_seq) as tasks,"
        " (select last_value from graphile_worker.job_queues_id_seq) as queues"
    )
    assert names.fetchone() == {"tasks": 2, "queues": 2}


# Keys.


@either
def test_a_key_replaces_the_job_that_waits(db: Connection, function: str) -> None:
    old = by_either(
        function, db, identifier="a", payload="[1]", queue_name="q", run_at="2031-01-01", max_attempts=2, job_key="k",
        priority=5, flags=["f"],
    )  # fmt: skip
    old = change(db, old, "attempts = 1, last_error = 'no', created_at = 'epoch', updated_at = 'epoch'")
    new = by_either(function, db, identifier="b", job_key="k")
    assert new["updated_at"] == new["run_at"] > old["created_at"] == new["created_at"]
    kept = {"id": old["id"], "key": "k", "created_at": old["created_at"], "updated_at": new["updated_at"]}
    assert new == {
        **kept, "job_queue_id": None, "task_id": 2, "payload": {}, "priority": 0, "run_at": new["run_at"],
        "attempts": 0, "max_attempts": 25, "last_error": None, "locked_at": None, "locked_by": None, "revision": 1,
        "flags": None, "is_available": True,
    }  # fmt: skip
    assert stored(db, old) == new


@either
@pytest.mark.parametrize(
    ("mode", "attempts", "kept"), [("preserve_run_at", 0, True), ("preserve_run_at", 1, False), ("replace", 0, False)]
)
def test_run_at_is_preserved_while_nothing_was_attempted(
    db: Connection, function: str, mode: str, attempts: int, kept: bool
) -> None:
    old = by_either(function, db, job_key="k", run_at="2031-01-01 00:00+00")
    change(db, old, f"attempts = {attempts}")
    new = by_either(function, db, job_key="k", run_at="2032-01-01 00:00+00", job_key_mode=mode)
    assert new["id"] == old["id"]
    assert (new["run_at"] == old["run_at"], new["run_at"].year) == (kept, 2031 if kept else 2032)


def test_no_mode_and_no_word_on_run_at_mean_replace(db: Connection) -> None:
    old = add(db, job_key="k", run_at="2031-01-01")
    assert add(db, job_key="k", run_at="2032-01-01", job_key_mode=None)["run_at"] > old["run_at"]
    (again,) = add_jobs(db, {"job_key": "k", "run_at": "2033-01-01"}, preserve=None)
    assert (again["id"], again["run_at"].year, again["revision"]) == (old["id"], 2033, 2)


@either
@pytest.mark.parametrize("state", [LOCKED, LOCKED_LONG_AGO, DEAD])
@pytest.mark.parametrize("mode", ["replace", "preserve_run_at"])
def test_a_key_is_taken_from_a_job_that_runs_or_is_dead(db: Connection, function: str, state: str, mode: str) -> None:
    old = by_either(function, db, payload="[1]", job_key="k", max_attempts=3, run_at="2031-01-01")
    old = change(db, old, f"{state}, updated_at = 'epoch'")
    new = by_either(function, db, payload="[2]", job_key="k", job_key_mode=mode)
    assert (new["id"] > old["id"], new["revision"], new["payload"], new["key"]) == (True, 0, [2], "k")
    assert new["run_at"] == new["created_at"]
    assert stored(db, old) == {**old, "key": None, "attempts": 3, "updated_at": new["updated_at"]}


@either
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('[1, {"b": 1e2, "a": 2, "a": 1}]', "[ 3 ]", '[1, {"a": 1, "b": 100}, 3]'),
        ("[1.10]", "[12345678901234567890123]", "[1.10, 12345678901234567890123]"),
        ("[]", "[[1]]", "[[1]]"),
        ("[1]", '{"a":  1}', '{"a":  1}'),
        ('{"a": 1}', "[1,2]", "[1,2]"),
        ('{"a": 1}', '{"b":1}', '{"b":1}'),
        ("[1]", "null", "null"),
        ("[1]", None, "{}"),
        (None, "[1]", "[1]"),
    ],
)
def test_lists_are_joined_and_nothing_else_is(
    db: Connection, function: str, old: str | None, new: str | None, expected: str
) -> None:
    by_either(function, db, payload=old, job_key="k")
    by_either(function, db, payload=new, job_key="k")
    assert db.execute("select payload::text from graphile_worker._private_jobs").fetchone()["payload"] == expected


@pytest.mark.parametrize("state", ["attempts = 0", LOCKED, LOCKED_LONG_AGO, DEAD])
def test_unsafe_dedupe_leaves_the_job_as_it_is(db: Connection, ear: Ear, state: str) -> None:
    old = add(db, payload="[1]", job_key="k", job_key_mode="unsafe_dedupe")
    old = change(db, old, f"{state}, updated_at = 'epoch'")
    assert counts(ear.heard()) == [1]
    other = {"payload": "[2]", "queue_name": "q", "priority": 3, "run_at": "2031-01-01", "max_attempts": 1}
    new = add(db, "other", **other, flags=["f"], job_key="k", job_key_mode="unsafe_dedupe")
    assert new == {**old, "revision": 1, "updated_at": new["updated_at"]}
    assert new["updated_at"] > old["updated_at"]
    assert stored(db, old) == new
    assert ear.heard() == []
    names = db.execute("select identifier as name from graphile_worker._private_tasks order by id").fetchall()
    assert names == [{"name": "task"}, {"name": "other"}]
    assert db.execute("select queue_name from graphile_worker._private_job_queues").fetchall() == [{"queue_name": "q"}]


def test_another_mode_is_refused_where_there_is_a_key_and_ignored_where_there_is_none(db: Connection, ear: Ear) -> None:
    with pytest.raises(psycopg.Error, match="job_key_mode") as caught:
        add(db, job_key="k", job_key_mode="nonsense")
    assert caught.value.sqlstate == "GWBKM"
    assert [add(db, job_key_mode=mode)["key"] for mode in ("nonsense", "unsafe_dedupe", None)] == [None] * 3
    assert counts(ear.heard()) == [1, 1, 1]


# add_jobs.


def test_rows_come_in_the_order_of_the_specs(db: Connection, ear: Ear) -> None:
    add(db, job_key="b")
    running = change(db, add(db, job_key="c"), LOCKED)
    ear.heard()
    keys = ["z", None, "c", "b", None, "a"]
    specs = [{"payload": str(i), "job_key": key, "queue_name": f"q{i % 2}"} for i, key in enumerate(keys)]
    jobs = add_jobs(db, *specs)
    assert [(job["payload"], job["key"]) for job in jobs] == list(enumerate(keys))
    assert [job["id"] for job in jobs if job["key"] != "b"] == sorted(job["id"] for job in jobs if job["key"] != "b")
    assert (jobs[3]["id"], stored(db, running)["key"]) == (1, None)
    assert counts(ear.heard()) == [6]
    unkeyed = [{"payload": str(i), "identifier": f"task{-i % 7}"} for i in range(100)]
    assert [job["payload"] for job in add_jobs(db, *unkeyed)] == list(range(100))


@pytest.mark.parametrize("keyed", [True, False])
def test_thousands_at_once(db: Connection, keyed: bool) -> None:
    array = (
        "array(select row('t' || i % 9, i::text, 'q' || i % 50, null, null, {key}, null, null)::{spec} from {all} i)"
    )
    key = "'k' || i" if keyed else "null"
    array = array.format(key=key, spec="graphile_worker.job_spec", all="generate_series(1, 2000)")
    for _ in range(2):
        query = f"select payload as p from graphile_worker.add_jobs({array})"  # noqa: S608
        assert [row["p"] for row in db.execute(query)] == list(range(1, 2001))
    total = db.execute("select count(distinct key) as keys, count(*) as jobs from graphile_worker.jobs").fetchone()
    assert total == ({"keys": 2000, "jobs": 2000} if keyed else {"keys": 0, "jobs": 4000})


@pytest.mark.parametrize("array", ["'{}'", "null"])
def test_no_specs_at_all_are_still_notified(db: Connection, ear: Ear, array: str) -> None:
    query = f"select * from graphile_worker.add_jobs({array}::graphile_worker.job_spec[])"  # noqa: S608
    assert db.execute(query).fetchall() == []
    assert ear.heard() == [""]


@pytest.mark.parametrize("state", [None, "attempts = 0", LOCKED])
def test_a_key_twice_in_one_call_is_refused_whole(db: Connection, ear: Ear, state: str | None) -> None:
    old = change(db, add(db, job_key="k"), state) if state else None
    ear.heard()
    with pytest.raises(pg.CardinalityViolation):
        add_jobs(db, {"job_key": "k"}, {}, {"job_key": "k"})
    assert db.execute("select * from graphile_worker._private_jobs").fetchall() == ([old] if old else [])
    assert ear.heard() == []


def test_a_spec_that_is_null_has_no_identifier(db: Connection) -> None:
    with pytest.raises(pg.NotNullViolation):
        db.execute("select * from graphile_worker.add_jobs(array[null]::graphile_worker.job_spec[])")


def test_what_is_notified_is_json_and_never_twice_the_same(db: Connection, ear: Ear) -> None:
    with db.transaction():
        for key in (None, None, "k", "k"):
            add(db, job_key=key)
        add_jobs(db, {}, {"job_key": "k"})
        call(db, "remove_job", job_key="k")
    payloads = ear.heard()
    assert counts(payloads) == [1, 1, 1, 1, 2, -1]
    assert all(set(payload) == {"r", "count"} and 0 <= payload["r"] < 1 for payload in payloads)
    assert len({payload["r"] for payload in payloads}) == 6
