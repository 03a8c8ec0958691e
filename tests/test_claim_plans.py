"""A claim costs what it claims: its plan follows indexes and touches few rows, whatever PostgreSQL knows of the table.

The statement is planned as the worker runs it, by the settings of Database.begin_by_index: with values, and as the
generic plan that a prepared statement may come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import ClientCursor

from graphile_worker_py import JobSpec, Queue, _database, _statements

JOBS = 20_000
COUNT = 50
TABLES = ("_private_jobs", "_private_job_queues", "_private_tasks")

# What the statistics say, and what is then there. Autovacuum would bring them up to date at a moment of its own.
OFF = "".join(f"alter table graphile_worker.{table} set (autovacuum_enabled = false);" for table in TABLES)
ANALYZE = "".join(f"analyze graphile_worker.{table};" for table in TABLES)
STATES = {
    "freshly loaded": (OFF, "load"),
    "analysed": (OFF, "load", ANALYZE),
    "analysed when empty": (OFF, ANALYZE, "load"),
    "analysed, then added to": (OFF, "load", ANALYZE, "load"),
    "analysed, then emptied": (OFF, "load", ANALYZE, "delete from graphile_worker._private_jobs"),
}

QUEUES = {"no queue": "null", "one queue": "'q0'", "a hundred queues": "'q' || n %% 100", "a queue each": "'q' || n"}

LOAD = """
with specs as (select n, {queue} as queue_name from generate_series(1, %(jobs)s) as n),
queues as (
    insert into graphile_worker._private_job_queues (queue_name)
    select distinct queue_name from specs where queue_name is not null
    on conflict (queue_name) do update set queue_name = excluded.queue_name
    returning id, queue_name
), task as (
    insert into graphile_worker._private_tasks (identifier) values ('work')
    on conflict (identifier) do update set identifier = excluded.identifier returning id
)
insert into graphile_worker._private_jobs (task_id, job_queue_id, priority)
select task.id, queues.id, n %% 3 from task, specs left join queues using (queue_name)
"""


def prepared(**changes: Any) -> tuple[str, list[Any]]:
    """Return the claim statement with numbered parameters, and their values."""
    values = {
        "tasks": ["work", "another"],
        "forbidden": [],
        "holder": "holder",
        "count": COUNT,
        "run_length": 10,
        "with_queues": True,
        "busy": [],
        "priorities": None,
        "since": None,
        "last_priority": None,
        "last_run_at": None,
        "within": 2.0,
        **changes,
    }
    text, names = _statements.statement("claim_jobs", "graphile_worker")
    assert set(names) == set(values)
    return text.decode(), [values[name] for name in names]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explain(db: psycopg.Connection, *, generic: bool, **changes: Any) -> list[dict[str, Any]]:
    """Return the nodes of the plan by which a claim was carried out, and undo it."""
    text, values = prepared(**changes)
    mode = "force_generic_plan" if generic else "force_custom_plan"
    with db.transaction(force_rollback=True), ClientCursor(db) as cursor:
        cursor.execute(_database._BY_INDEX)
        cursor.execute(f"set local plan_cache_mode = {mode}")
        cursor.execute("prepare claim as " + text)  # type: ignore[arg-type]
        places = ", ".join("%s" for _ in values)
        cursor.execute(f"explain (analyze, format json) execute claim ({places})", values)  # type: ignore[arg-type]
        ((((plan,),)),) = cursor.fetchall()
        cursor.execute("deallocate claim")
    return list(nodes(plan["Plan"]))


def touched(node: dict[str, Any]) -> float:
    """Return how many rows a node has read, those it threw away included."""
    removed = sum(node.get(key, 0) for key in ("Rows Removed by Filter", "Rows Removed by Index Recheck"))
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])


def check(plan: list[dict[str, Any]], *, claimed: int) -> None:
    scans = [node for node in plan if node.get("Relation Name") in TABLES and node["Node Type"] != "ModifyTable"]
    assert scans
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
    walked = {f"{node['Node Type']} on {node['Relation Name']}": touched(node) for node in scans}
    assert max(walked.values()) <= 10 * COUNT, walked
    compared = [node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"] for node in plan]
    assert max(compared) <= 5 * COUNT, "each row with each"
    (updated,) = [node for node in plan if node.get("Subplan Name") == "CTE claimed"]
    assert updated["Actual Rows"] == claimed


@pytest.mark.parametrize("kind", QUEUES)
@pytest.mark.parametrize("state", STATES)
def test_a_claim_reads_no_more_than_it_takes(queue: Queue, db: psycopg.Connection, state: str, kind: str) -> None:
    claimed = {"no queue": COUNT, "one queue": 10, "a hundred queues": COUNT, "a queue each": COUNT}[kind]
    for action in STATES[state]:
        if action == "load":
            db.execute(LOAD.format(queue=QUEUES[kind]), {"jobs": JOBS})  # type: ignore[arg-type]
        else:
            db.execute(action)  # type: ignore[arg-type]
    expected = 0 if state.endswith("emptied") else claimed
    for generic in (False, True):
        check(explain(db, generic=generic), claimed=expected)


def test_jobs_of_the_future_and_other_tasks_at_a_better_priority_are_not_walked_over(
    queue: Queue, db: psycopg.Connection
) -> None:
    db.execute(OFF)  # type: ignore[arg-type]
    db.execute(LOAD.format(queue="null"), {"jobs": JOBS})  # type: ignore[arg-type]
    db.execute("update graphile_worker._private_jobs set run_at = now() + interval '1 day', priority = -1 - id % 3")
    db.execute("vacuum graphile_worker._private_jobs")
    queue.add_job("work", priority=1)
    for generic in (False, True):
        check(explain(db, generic=generic), claimed=1)


def test_a_claim_that_is_told_where_to_end_walks_no_further(queue: Queue, db: psycopg.Connection) -> None:
    db.execute(OFF)  # type: ignore[arg-type]
    db.execute(LOAD.format(queue="null"), {"jobs": JOBS})  # type: ignore[arg-type]
    db.execute("update graphile_worker._private_jobs set run_at = now() - id * interval '1 ms'")
    db.execute("vacuum graphile_worker._private_jobs")
    rows = db.execute("select run_at from graphile_worker._private_jobs where priority = 0 order by run_at").fetchall()
    last = {"last_priority": 0, "last_run_at": rows[29][0]}
    for generic in (False, True):
        check(explain(db, generic=generic, **last), claimed=30)
        check(explain(db, generic=generic, tasks=["another"], **last), claimed=0)


def test_jobs_of_full_limits_in_front_are_passed_over_by_one_walk(queue: Queue, db: psycopg.Connection) -> None:
    db.execute(OFF)  # type: ignore[arg-type]
    queue.add_jobs(JobSpec("limited", flags=["limit:full"]) for _ in range(10_000))
    queue.add_job("limited", flags=["limit:free"])
    queue.add_job("work")
    for options in ({"tasks": ["limited"], "forbidden": ["limit:full", "limit:another"]}, {"tasks": ["work"]}):
        for generic in (False, True):
            plan = explain(db, generic=generic, **options)
            (claimed,) = [node for node in plan if node.get("Subplan Name") == "CTE claimed"]
            assert claimed["Actual Rows"] == 1
            scans = [node for node in plan if node.get("Relation Name") == "_private_jobs" and touched(node) > 5_000]
            assert [node["Node Type"] for node in scans] == ["Index Scan"]
            assert touched(scans[0]) <= 10_002


def test_the_settings_hold_for_the_claim_and_not_for_the_session(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "jit", "enable_seqscan", "enable_bitmapscan", "enable_sort", "plan_cache_mode"
    asked = "select " + ", ".join(f"current_setting('{name}')" for name in names)
    monkeypatch.setattr(_database, "statement", lambda name, schema: (asked.encode(), ()))
    before = queue.database.run("claim_jobs")
    assert queue.database.begin_by_index("claim_jobs", {})().fetchall() == [
        ("off", "off", "off", "off", "force_generic_plan")
    ]
    assert queue.database.run("claim_jobs") == before
    assert before[0][1:] == ("on", "on", "on", "auto")
