"""A producer adds jobs and does nothing else: through a schema that has only that, and perhaps for some tasks only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import psycopg
import pytest
from command_line import assert_error, graphile
from plain_sql import eventually
from psycopg import sql
from rights import Stage, staged

from graphile_worker_py import (
    JobContext,
    JobSpec,
    NotSupported,
    Queue,
    RetryLater,
    SchemaMissing,
    doctor,
    quick_add_job,
    roles,
)

REFUSED = "jobs may be added for these tasks only: mine, my other"
FOREIGN = "the job that has this key is of a task for which no jobs may be added"
ROWS = "select row_to_json(j)::text from graphile_worker._private_jobs as j order by id"
STATES = {
    "waits": "priority = 0",
    "runs": "locked_at = now(), locked_by = 'w', attempts = 1",
    "has failed": "attempts = max_attempts, last_error = 'secret'",
    "has a task that is gone": "task_id = 999",
}


@pytest.fixture
def stage(migrated_url: str) -> Iterator[Stage]:
    with staged(migrated_url) as stage:
        yield stage


@pytest.fixture
def owner(stage: Stage, queue: Queue) -> Queue:
    """Return a queue on the tables themselves, with all rights."""
    return queue


def rows(stage: Stage) -> list[str]:
    return [row for (row,) in stage.admin.execute(ROWS).fetchall()]


def test_adding_is_as_with_all_rights(stage: Stage, owner: Queue) -> None:
    stage.set_up()
    producer = stage.queue("producer")
    when = datetime(2100, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    options: list[dict[str, Any]] = [
        {},
        {"queue_name": "q", "run_at": when, "priority": -3, "max_attempts": 7, "flags": ["a", "b"]},
        {"run_at": timedelta(hours=1), "job_key": "k"},
        {"run_at": timedelta(hours=2), "job_key": "k", "job_key_mode": "preserve_run_at"},
        {"job_key": "k", "job_key_mode": "unsafe_dedupe"},
    ]
    for more in options:
        job = producer.add_job("task", {"n": 1}, **more)
        assert job == owner.job(job.id)
        with stage.connect("producer") as connection, connection.transaction():
            assert producer.add_job("task", {"n": 1}, connection=connection, **more).key == job.key
    jobs = producer.add_jobs(JobSpec("task", n, job_key=f"k{n % 2000}" if n % 2 else None) for n in range(4500))
    assert [job.payload for job in jobs] == list(range(4500))
    assert jobs[4499] == owner.job(jobs[4499].id)
    with ThreadPoolExecutor(8) as threads:
        assert len({job.id for job in threads.map(lambda n: producer.add_job("task", n), range(50))}) == 50
    schema = stage.roles.producer_schema
    assert quick_add_job(stage.url("producer"), "task", schema=schema).task_identifier == "task"
    done = graphile("add", "task", "--schema", schema, "--database", stage.url("producer"))
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_are_told_when_the_job_is_committed(stage: Stage) -> None:
    stage.set_up(["task"])
    stage.admin.execute('listen "jobs:insert"')
    producer = stage.queue("producer")
    with stage.connect("producer", autocommit=False) as connection:
        producer.add_job("task", connection=connection)
        producer.add_jobs([JobSpec("task", job_key="k")], connection=connection)
        connection.rollback()
        producer.add_job("task", job_key="k", connection=connection)
        assert list(stage.admin.notifies(timeout=0)) == []
        connection.commit()
    (notice,) = stage.admin.notifies(timeout=10, stop_after=1)
    assert '"count":1' in notice.payload.replace(" ", "")


def test_what_was_there_before_stays_a_secret(stage: Stage, owner: Queue) -> None:
    stage.set_up()
    producer = stage.queue("producer")
    for mode in ("replace", "preserve_run_at", "unsafe_dedupe"):
        id = owner.add_job("task", ["secret"], job_key=mode).id
        stage.admin.execute("update graphile_worker._private_jobs set last_error = 'secret'")
        job = producer.add_job("task", ["sent"], job_key=mode, job_key_mode=mode)
        assert (job.id, job.payload, job.last_error) == (id, ["sent"], None)
    owner.add_job("task", ["secret"], job_key="many")
    assert [job.payload for job in producer.add_jobs([JobSpec("task", job_key="many")])] == [{}]
    owner.add_job("task", ["secret"], job_key="many")
    assert [job.payload for job in producer.add_jobs([JobSpec("task", ["sent"], job_key="many")])] == [["sent"]]
    assert '"payload":["secret", "sent"]' in rows(stage)[-1]
    broken = "update graphile_worker._private_jobs set payload = %s where key = 'many'"
    for payload in (r'["secret\u0000"]', r'["secret\ud83d"]'):
        stage.admin.execute(broken, [payload])
        for add in (
            lambda: producer.add_job("task", ["sent"], job_key="many"),
            lambda: producer.add_jobs([JobSpec("task", ["sent"], job_key="many")]),
        ):
            with pytest.raises(psycopg.DataError, match="to be merged with") as caught:
                add()
            assert "secret" not in str(caught.value)


def test_nothing_else_is_there(stage: Stage) -> None:
    stage.set_up()
    producer = stage.queue("producer")
    for use in (producer.jobs, producer.stats, lambda: producer.job(1), lambda: producer.remove_job("key")):
        with pytest.raises(SchemaMissing, match="is not installed here, or not visible to this role"):
            use()
    for use in (lambda: producer.complete_jobs([1]), producer.cleanup, lambda: producer.cancel(1), producer.run_once):
        with pytest.raises((SchemaMissing, NotSupported, LookupError)):
            use()
    with Queue(stage.url("migrator"), schema=stage.roles.producer_schema) as by_mistake:
        by_mistake.task("task")(print)
        for use in (by_mistake.migrate, by_mistake.run_once):
            with pytest.raises(SchemaMissing, match="is one for producers, where jobs are added and nothing else"):
                use()
    (found,) = [each for each in doctor.examine(producer) if each.check == "schema"]
    assert (found.level, found.do) == ("problem", "name the schema that the tables are in")
    with Queue(stage.url("producer")) as direct, pytest.raises(NotSupported, match="permission denied for schema"):
        direct.add_job("task")


# For some tasks only.


def test_jobs_of_other_tasks_are_refused(stage: Stage, owner: Queue) -> None:
    stage.set_up(["mine", "my other"])
    producer = stage.queue("producer")
    with pytest.raises(NotSupported, match=REFUSED):
        producer.add_job("theirs")
    with pytest.raises(NotSupported, match=REFUSED):
        producer.add_jobs(JobSpec("theirs" if n == 5000 else "mine") for n in range(5001))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=REFUSED), stage.connect("producer") as connection:
        connection.execute('select "graphile_worker for producers".add_job(null)')
    schema = stage.roles.producer_schema
    done = graphile("add", "theirs", "--schema", schema, "--database", stage.url("producer"))
    assert_error(done, 69, REFUSED)
    assert rows(stage) == []
    assert stage.admin.execute("select identifier from graphile_worker._private_tasks").fetchall() == []
    assert producer.add_job("my other").task_identifier == "my other"
    stage.set_up(["theirs"])
    assert producer.add_job("theirs").task_identifier == "theirs"
    with pytest.raises(NotSupported, match="for these tasks only: theirs"):
        producer.add_job("mine")
    stage.set_up()
    producer.add_job("mine")


def test_several_producers_have_lists_of_their_own(stage: Stage) -> None:
    stage.set_up(["mine"])
    another = attrs.evolve(
        stage.roles, producer=stage.logins["outsider"], producer_schema="second", tasks=["theirs"], members=()
    )
    stage.run(roles.set_up(another))
    for kind, schema, task in (("producer", stage.roles.producer_schema, "mine"), ("outsider", "second", "theirs")):
        with Queue(stage.url(kind), schema=schema) as producer:
            assert producer.add_job(task).task_identifier == task
            with pytest.raises(NotSupported, match=f"for these tasks only: {task}"):
                producer.add_job("another")
    with Queue(stage.url("producer"), schema="second") as other, pytest.raises(NotSupported, match="schema second"):
        other.add_job("theirs")


@pytest.mark.parametrize("state", STATES)
def test_a_key_of_another_tasks_job_is_refused(stage: Stage, owner: Queue, state: str) -> None:
    stage.set_up(["mine", "my other"])
    producer = stage.queue("producer")
    owner.add_job("theirs", ["secret"], job_key="theirs")
    stage.admin.execute(f"update graphile_worker._private_jobs set {STATES[state]}")  # noqa: S608 - one of four
    before = rows(stage)
    for mode in ("replace", "preserve_run_at", "unsafe_dedupe"):
        with pytest.raises(NotSupported, match=FOREIGN) as caught:
            producer.add_job("mine", ["x"], job_key="theirs", job_key_mode=mode)
        assert "secret" not in str(caught.value.__cause__)
    with pytest.raises(NotSupported, match=FOREIGN):
        producer.add_jobs([JobSpec("mine", job_key="free"), JobSpec("mine", ["x"], job_key="theirs")])
    assert rows(stage) == before
    mine = producer.add_job("mine", [1], job_key="mine")
    stage.admin.execute(f"update graphile_worker._private_jobs set {STATES[state]} where key = 'mine'")  # noqa: S608
    if state != "has a task that is gone":
        again = producer.add_job("my other", [2], job_key="mine")
        assert (again.id == mine.id, again.task_identifier) == (state == "waits", "my other")


def waits_for(stage: Stage, who: psycopg.Connection, whom: psycopg.Connection) -> bool:
    pids = [whom.info.backend_pid, who.info.backend_pid]
    return stage.admin.execute("select %s = any (pg_blocking_pids(%s))", pids).fetchone() == (True,)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_key_is_held_from_the_look_to_the_end(stage: Stage, owner: Queue, end: str) -> None:
    stage.set_up(["mine"])
    looking, other = stage.connect("migrator", autocommit=False), stage.connect("worker", autocommit=False)
    looking.execute(sql.SQL("set local role {}").format(sql.Identifier(stage.roles.owner)))
    looking.execute("""select "graphile_worker for producers"._private_guard('{mine}', '{free, other, free}')""")
    with ThreadPoolExecutor(1) as thread:
        adding = thread.submit(owner.add_job, "theirs", connection=other, job_key="free")
        eventually(lambda: waits_for(stage, other, looking))
        getattr(looking, end)()
        assert adding.result(30).revision == 0
    other.commit()
    assert [job.task_identifier for job in owner.jobs().items] == ["theirs"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("many", [True, False])
def test_a_job_of_another_task_that_comes_at_the_same_time_is_left_alone(
    stage: Stage, owner: Queue, end: str, many: bool
) -> None:
    stage.set_up(["mine"])
    producer = stage.queue("producer")
    first, second = stage.connect("worker", autocommit=False), stage.connect("producer")
    theirs = owner.add_job("theirs", ["secret"], job_key="key", connection=first)

    def add() -> Any:
        if many:
            return producer.add_jobs([JobSpec("mine", ["x"], job_key="key")], connection=second)
        return [producer.add_job("mine", ["x"], job_key="key", connection=second)]

    with ThreadPoolExecutor(1) as thread:
        adding = thread.submit(add)
        eventually(lambda: waits_for(stage, second, first))
        getattr(first, end)()
        if end == "commit":
            with pytest.raises(NotSupported, match=FOREIGN):
                adding.result(30)
            assert owner.job(theirs.id) == theirs
        else:
            assert [job.revision for job in adding.result(30)] == [0]


def test_under_load_no_job_of_another_task_is_touched(stage: Stage, owner: Queue) -> None:
    """Two limited producers, somebody with all rights, and a worker, all on the same three keys."""
    stage.set_up(["mine"])
    owner.task("mine")(lambda payload: None)
    kept: list[int] = []
    over = threading.Event()

    @owner.task
    def theirs(payload: Any, ctx: JobContext) -> None:
        if ctx.job.attempts == 1:
            raise RetryLater(delay=timedelta(0))  # one whose key was taken from it would have no second attempt
        kept.append(payload["n"])

    def produce(many: bool) -> int:
        producer, done = stage.queue("producer"), 0
        while not over.is_set():
            key = f"k{done % 3}"
            try:
                if many:
                    producer.add_jobs([JobSpec("mine", job_key=key), JobSpec("mine", job_key="k0")])
                else:
                    producer.add_job("mine", job_key=key)
            except NotSupported:
                pass
            done += 1
        return done

    def work() -> None:
        while not over.is_set():
            owner.run_once()

    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(produce, True), threads.submit(produce, False), threads.submit(work)]
        try:
            added = [
                owner.add_job("theirs", {"n": n}, job_key=f"k{n % 3}", job_key_mode="unsafe_dedupe") for n in range(60)
            ]
        finally:
            over.set()
        assert all(thread.result(60) != 0 for thread in running)
    owner.run_once()
    assert set(kept) == {n for n, job in enumerate(added) if job.revision == 0}
