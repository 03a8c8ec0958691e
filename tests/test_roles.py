"""What each role may and may not: everything of its work, and nothing else; and how they come to be so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
import psycopg
import pytest
from plain_sql import eventually
from psycopg import sql
from rights import ACTIONS, M, P, Stage, V, W, owners, staged, table

from graphile_worker_py import (
    GraphileWorkerError,
    InvalidRoles,
    JobContext,
    JobFailedForGood,
    Limit,
    NotSupported,
    Queue,
    Rate,
    WorkerPool,
    doctor,
    roles,
)
from graphile_worker_py.roles import Roles
from graphile_worker_py.testing import drain


@pytest.fixture
def stage(migrated_url: str) -> Iterator[Stage]:
    with staged(migrated_url) as stage:
        yield stage


@pytest.fixture
def empty_stage(database_url: str) -> Iterator[Stage]:
    with staged(database_url, schema='Odd "queue"') as stage:
        yield stage


def test_each_role_may_do_its_work_and_nothing_else(stage: Stage) -> None:
    stage.set_up()
    assert table(stage) == ACTIONS
    stage.set_up()
    assert table(stage) == ACTIONS


def test_row_security_may_be_forced_and_names_may_be_odd(empty_stage: Stage, database_url: str) -> None:
    schema = sql.Identifier(empty_stage.roles.schema)
    with Queue(database_url, schema=empty_stage.roles.schema) as queue:
        queue.migrate()
    empty_stage.set_up(["task", "it's 100% {odd} \\'"])
    for relation in ("jobs", "tasks", "job_queues", "known_crontabs"):
        name = sql.Identifier(empty_stage.roles.schema, f"_private_{relation}")
        empty_stage.admin.execute(sql.SQL("alter table {} force row level security").format(name))
    producer, worker = empty_stage.queue(P), empty_stage.queue(W)
    ran = []
    worker.task("it's 100% {odd} \\'")(ran.append)
    producer.add_job("it's 100% {odd} \\'", [1], job_key="key", queue_name="queue")
    producer.add_job("it's 100% {odd} \\'", [2], job_key="key", queue_name="queue")
    assert [stats.ready for stats in empty_stage.queue(V).stats()] == [1]
    assert worker.run_once().completed == 1
    assert ran == [[1, 2]]
    assert empty_stage.admin.execute(sql.SQL("select count(*) from {}.jobs").format(schema)).fetchone() == (0,)


# A worker, with all it can do.

BEFORE = """
insert into graphile_worker._private_known_crontabs values
  ('tick', now() - interval '1 hour', now() - interval '5 minutes');
insert into graphile_worker._private_py_pools values
  ('gone', now() - interval '1 hour', '1 minute', now() - interval '2 hours', 'host', 1, 1, '0');
select graphile_worker.add_job('left', queue_name => 'left');
update graphile_worker._private_jobs set locked_by = 'gone', locked_at = now() - interval '1 hour', attempts = 1;
update graphile_worker._private_job_queues set locked_by = 'gone', locked_at = now() - interval '1 hour';
"""


def with_tasks(queue: Queue) -> Queue:
    @queue.task(keep_result=True, limit=Limit(1), rate=Rate(100, per=timedelta(seconds=1)))
    def work(payload: Any, ctx: JobContext) -> Any:
        ctx.progress(1, 2, "half")
        with ctx.transaction() as connection:
            ctx.add_job("items", [1, 2], queue_name="queue", max_attempts=1, connection=connection)
            ctx.result = payload
        return payload

    @queue.task
    def items(payload: Any) -> list[Any]:
        return [None, ValueError("no")]

    @queue.task
    def endless(payload: Any, ctx: JobContext) -> None:
        queue.set_timeout(ctx.job.id, 60)
        queue.cancel(ctx.job.id, "enough")
        assert ctx.cancelled.wait(30)
        ctx.check_cancelled()

    @queue.cron("* * * * *", backfill=timedelta(minutes=10))
    @queue.task
    def tick(payload: Any) -> None:
        pass

    return queue


def test_a_worker_can_do_all_that_a_worker_does(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.admin.execute(BEFORE)
    stage.set_up()
    queue = with_tasks(stage.queue(W))
    assert queue.migrate() == []
    with WorkerPool(queue, 2, history=timedelta(days=1), heartbeat=0.1, dead_after=2):
        assert queue.wait_for(queue.add_job("work", {"n": 1}), 30) == {"n": 1}
        with pytest.raises(JobFailedForGood, match="enough"):
            queue.wait_for(queue.add_job("endless"), 30)
        eventually(lambda: len(queue.history(task="tick")) >= 5)
        eventually(lambda: queue.jobs(task="left").items[0].state == "retrying")
        eventually(lambda: queue.jobs(task="items").items[0].state == "failed")
    queue.crontab.pause("tick")
    queue.crontab.resume("tick")
    queue.crontab.run("tick")
    assert {record.getMessage() for record in caplog.records if record.levelname == "WARNING"} == {
        "worker pool gone has vanished; jobs taken back from the dead: 1"
    }
    left = queue.jobs(task="left").items[0].id
    queue.reschedule_jobs([left], run_at=timedelta(0))
    queue.permanently_fail_jobs([left])
    queue.force_unlock_workers(["gone"])
    queue.cleanup(["DELETE_PERMAFAILED_JOBS", "GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES"])
    assert queue.job(left) is None
    queue.add_job("work", "again")
    assert [job.task_identifier for job in drain(queue, raise_errors=False).ran] == ["tick", "work", "items"]


def test_a_viewer_sees_all_but_what_is_in_jobs(stage: Stage, queue: Queue) -> None:
    stage.set_up()
    stage.admin.execute(BEFORE)
    viewer = stage.queue(V)
    (row,) = viewer.jobs().items
    assert (row.task_identifier, row.queue_name, row.state) == ("left", "left", "running")
    assert viewer.stats() == queue.stats()
    assert [item.identifier for item in viewer.crontab.known()] == ["tick"]
    assert list(viewer.history()) == []
    assert viewer.progress(row.id) is None
    with pytest.raises(NotSupported, match="permission denied for table _private_jobs"):
        viewer.job(row.id)
    for kind, wanted in ((V, "note"), (W, "ok")):
        found = {finding.check: finding.level for finding in doctor.examine(stage.queue(kind))}
        own = {check: found[check] for check in ("schema", "own-tables", "owners", "rights", "row-security", "locks")}
        assert own == {**dict.fromkeys(own, "ok"), "rights": wanted, "locks": "note"}  # a pool that is gone


# How they come to be so.


def test_a_migrator_installs_and_upgrades_and_all_is_the_owners(empty_stage: Stage) -> None:
    stage = empty_stage
    stage.run(roles.create_schema(stage.roles))
    queue = stage.queue(M)
    assert queue.migrate() == list(range(1, 21))
    assert owners(stage) == {stage.roles.owner}
    stage.set_up()
    assert table(stage) == ACTIONS
    schema = sql.Identifier(stage.roles.schema)
    for statement in (
        "delete from {}.migrations where id > 18",
        "drop table {0}._private_py_limits, {0}._private_py_slots, {0}._private_py_starts",
        "delete from {}._private_py_migrations where id >= 5",
    ):
        stage.admin.execute(sql.SQL(statement).format(schema))
    with pytest.raises(NotSupported, match="permission denied"):
        stage.queue(W).migrate()
    assert queue.migrate() == [19, 20]
    assert owners(stage) == {stage.roles.owner}
    worker = with_tasks(stage.queue(W))  # on tables that came after the grants
    worker.add_job("work")
    assert worker.run_once().completed == 1


def test_a_superuser_who_migrates_leaves_all_to_the_owner(empty_stage: Stage, database_url: str) -> None:
    empty_stage.run(roles.create_schema(empty_stage.roles))
    with Queue(database_url, schema=empty_stage.roles.schema) as queue:
        queue.migrate()
    assert owners(empty_stage) == {empty_stage.roles.owner}


def test_who_owns_the_tables_and_may_create_roles_needs_no_more(empty_stage: Stage) -> None:
    stage = empty_stage
    who = sql.Identifier(stage.logins["outsider"])
    stage.admin.execute(sql.SQL("alter role {} createrole").format(who))
    database = sql.Identifier(stage.admin.info.dbname)
    stage.admin.execute(sql.SQL("grant create on database {} to {}").format(database, who))
    stage.queue("outsider").migrate()
    for tasks in ([], ["task"], []):
        stage.set_up(tasks, by="outsider")
        assert owners(stage) == {stage.roles.owner}
        held = "select has_schema_privilege(%s, %s, 'usage') or pg_has_role(%s, %s, 'usage')"
        name = stage.logins["outsider"]
        assert stage.admin.execute(held, [name, stage.roles.schema, name, stage.roles.owner]).fetchone() == (False,)
    stage.run(roles.undo(stage.roles), by="outsider")
    assert owners(stage) == {stage.logins["outsider"]}
    assert stage.queue("outsider").add_job("task").id == 1


def test_a_role_that_was_set_counts_as_who_runs_it(empty_stage: Stage) -> None:
    stage, who = empty_stage, sql.Identifier(empty_stage.logins["outsider"])
    stage.admin.execute(sql.SQL("alter role {} createrole").format(who))
    database = sql.Identifier(stage.admin.info.dbname)
    stage.admin.execute(sql.SQL("grant create on database {} to {}").format(database, who))
    stage.queue("outsider").migrate()
    stage.admin.execute(sql.SQL("set role {}").format(who))
    stage.admin.execute(roles.set_up(stage.roles))
    who_and_held = "select current_user::text, pg_has_role(%s, 'usage')"
    found = stage.admin.execute(who_and_held, [stage.roles.owner]).fetchone()
    stage.admin.execute("reset role")
    assert found == (stage.logins["outsider"], False)
    assert owners(stage) == {stage.roles.owner}


def test_what_was_granted_before_does_not_count(stage: Stage) -> None:
    producer, worker, viewer = (sql.Identifier(stage.roles.producer), stage.roles.worker, stage.roles.viewer)
    stage.admin.execute(sql.SQL("create role {}").format(producer))
    for grant in ("usage on schema graphile_worker", "all on all tables in schema graphile_worker"):
        stage.admin.execute(sql.SQL("grant " + grant + " to {}").format(producer))
    stage.admin.execute("revoke execute on all functions in schema graphile_worker from public")
    stage.set_up()
    assert table(stage) == ACTIONS
    stage.run(roles.set_up(attrs.evolve(stage.roles, worker=viewer, viewer=worker, members=())))
    with Queue(stage.url(V)) as now_worker:
        now_worker.add_job("task")
        assert now_worker.remove_job("key") is not None
    with Queue(stage.url(W)) as now_viewer, pytest.raises(NotSupported, match="permission denied"):
        now_viewer.add_job("task")


def test_what_is_undone_leaves_nothing(stage: Stage) -> None:
    query = """
        select array(select relacl::text from pg_class where relnamespace = n.oid and relacl is not null)
            || array(select proacl::text from pg_proc where pronamespace = n.oid and proacl is not null),
            array(select polname::text from pg_policy), array(select defaclacl::text from pg_default_acl), n.nspacl
        from pg_namespace as n where n.nspname = 'graphile_worker'
    """
    stage.set_up(["task"])
    stage.run(roles.undo(stage.roles))
    relations, policies, defaults, schema = stage.admin.execute(query).fetchone() or ()
    names = [name for name in stage.roles.names if name in f"{relations}{policies}{defaults}{schema}"]
    assert names == [stage.roles.owner] * bool(names)
    assert owners(stage) == {stage.admin.info.user}
    with pytest.raises(NotSupported):
        stage.queue(W).stats()
    stage.set_up()
    assert table(stage) == ACTIONS


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("create role {worker} superuser", "is a superuser or bypasses row security"),
        ("create role {viewer} bypassrls", "is a superuser or bypasses row security"),
        ("create role {viewer} in role current_user", "or may become one that does"),
        ("create role {owner}; create role {producer} in role {owner}", "is a member of .*, and would have its rights"),
        ("create role {worker}; create role {viewer} in role {worker}", "is a member of .*, and would have its rights"),
        ("create schema {producer_schema}", "is there already and belongs to"),
        (
            "create role {owner}; create schema {producer_schema} authorization {owner}"
            " create table things (); alter table {producer_schema}.things owner to {owner}",
            "holds tables, such as things",
        ),
        ("drop schema graphile_worker cascade", "is not installed in this database: run graphile-worker-py migrate"),
    ],
)
def test_what_would_not_hold_is_refused(stage: Stage, before: str, message: str) -> None:
    names = {what: sql.Identifier(getattr(stage.roles, what)) for what in (*roles.KINDS, "producer_schema")}
    stage.admin.execute(sql.SQL(before).format(**names))
    made = stage.admin.execute("select count(*) from pg_roles").fetchone()
    with pytest.raises(NotSupported, match=message):
        stage.set_up()
    assert stage.admin.execute("select count(*) from pg_roles").fetchone() == made


def test_who_may_not_create_roles_is_told_so(stage: Stage) -> None:
    with pytest.raises(NotSupported, match=f"role {stage.logins['outsider']} may not create the role .*CREATEROLE"):
        stage.set_up(by="outsider")
    stage.roles = attrs.evolve(stage.roles, members=[(W, "nobody at all")])
    with pytest.raises(psycopg.errors.UndefinedObject, match='"nobody at all" does not exist'):
        stage.set_up()
    assert owners(stage) == {stage.admin.info.user}


def test_a_lock_that_somebody_holds_is_told_and_nothing_changes(stage: Stage) -> None:
    text = roles.set_up(stage.roles).as_string()
    with stage.admin.transaction():
        stage.admin.execute("lock graphile_worker._private_tasks in access share mode")
        with pytest.raises(GraphileWorkerError, match="a lock on the tables for ten seconds: nothing was changed"):
            stage.run(sql.Composed([sql.SQL(text.replace("'10s'", "'50ms'"))]))
    assert owners(stage) == {stage.admin.info.user}
    assert stage.admin.execute("select from pg_roles where rolname = %s", [stage.roles.owner]).fetchone() is None


@pytest.mark.parametrize(
    "names",
    [
        {"worker": ""},
        {"worker": "x" * 64},
        {"worker": "pg_mine"},
        {"worker": "none"},
        {"worker": "two\nlines"},
        {"worker": "$graphile_worker_py$"},
        {"worker": "queue_viewer"},
        {"producer_schema": "queue"},
        {"producer_schema": "public"},
        {"schema": "public"},
        {"schema": "q" * 60},
        {"tasks": ["$graphile_worker_py$"]},
        {"members": [("boss", "ann")]},
        {"members": [("owner", "ann")]},
        {"members": [("worker", "x" * 64)]},
        {"members": [("worker", 5)]},
        {"members": {"worker": "ann"}},
        {"tasks": "resize"},
    ],
    ids=str,
)
def test_names_that_cannot_be_are_refused(names: dict[str, Any]) -> None:
    with pytest.raises(InvalidRoles):
        Roles(**{"schema": "queue", **names})


def test_everybody_may_apply_at_once(stage: Stage) -> None:
    failed: list[BaseException] = []

    def apply() -> None:
        try:
            stage.set_up()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=apply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert table(stage) == ACTIONS
