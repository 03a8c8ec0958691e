"""Whose connection is used, and what becomes of it: in views, in threads that add, in threads that run handlers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from django.db import OperationalError, close_old_connections, connection, connections, transaction
from django.test import SimpleTestCase, TransactionTestCase
from django.test.testcases import DatabaseOperationForbidden
from pigeon.models import Letter
from pigeon.tasks import send_letter

from graphile_worker_py import JobCompleted, JobContext, JobSpec, WorkerPool
from graphile_worker_py.contrib.django import forget_jobs, queue, worker_queue

from .test_adding import committed, jobs

CARE = "graphile_worker_py.contrib.django.connection_care"
seen: dict[str, Any] = {}


@queue.task
def look_around(payload: dict[str, Any], ctx: JobContext) -> None:
    """Use the ORM here and in a helper thread, and add jobs in transactions."""

    def in_a_helper() -> None:
        seen["helper"] = connections["default"]
        Letter.objects.create(to="helper")

    seen["handler"] = connections["default"]
    Letter.objects.create(to="handler")
    ctx.submit(in_a_helper).result()
    for to in ("kept", "dropped"):
        with transaction.atomic():
            Letter.objects.create(to=to)
            ctx.add_job("somewhere_else", {"to": to})
            send_letter.add_job({"to": to}, run_at=ctx.job.run_at.replace(year=9000))
            transaction.set_rollback(to == "dropped")


@queue.task
def leave_a_block_open(payload: dict[str, Any]) -> None:
    """Begin what nobody ends."""
    transaction.atomic().__enter__()
    Letter.objects.create(to=payload["to"])


@queue.task
def leave_a_transaction_open(payload: dict[str, Any]) -> None:
    """Begin what not even Django knows of."""
    with connection.cursor() as cursor:
        cursor.execute("begin")
    Letter.objects.create(to=payload["to"])


@queue.task
def write_a_letter(payload: dict[str, Any]) -> None:
    """Do nothing out of the way."""
    Letter.objects.create(to=payload["to"])


@queue.task
def close_all(payload: dict[str, Any]) -> None:
    """Leave nothing behind where connections are kept for ever."""
    connections.close_all()


class InNone(TransactionTestCase):
    """What is committed is seen by the other threads."""

    def tearDown(self) -> None:
        forget_jobs()

    def test_a_request_and_its_job_are_one_transaction(self) -> None:
        self.client.raise_request_exception = False
        assert self.client.post("/letters", {"to": "ann"}).status_code == 200
        assert self.client.post("/letters?fail=1", {"to": "ben"}).status_code == 500
        assert self.client.post("/letters", {"to": "ann"}).status_code == 500
        assert list(Letter.objects.values_list("to", flat=True)) == ["ann"]
        assert committed() == 1

    def test_a_connection_that_was_lost_is_replaced_as_ever(self) -> None:
        with closing(connection.copy()) as other, connection.cursor() as cursor, other.cursor() as killer:
            cursor.execute("select pg_backend_pid()")
            killer.execute("select pg_terminate_backend(%s, 10000)", cursor.fetchone())
        with pytest.raises(OperationalError):
            send_letter.add_job({"to": "ann"})
        close_old_connections()  # as after each request
        send_letter.add_job({"to": "ann"})
        assert committed() == 1

    def test_threads_that_add_at_the_same_time_keep_their_transactions_apart(self) -> None:
        send_letter.add_job({"to": "first"})  # a task that is known may share a statement, where connections do
        start = threading.Barrier(4)

        def add(thread: int) -> None:
            start.wait(30)
            for number in range(20):
                with transaction.atomic():
                    send_letter.add_job({"to": f"{thread}.{number}"})
                    transaction.set_rollback(number % 2 == 0)
            connection.close()

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(add, range(4)))
        assert jobs() == committed() == 1 + 4 * 10

    def test_what_a_job_leaves_unfinished_is_undone_and_no_matter_of_the_next(self) -> None:
        names = ("leave_a_block_open", "write_a_letter", "leave_a_transaction_open", "write_a_letter", "close_all")
        for age in (0, None):
            with pytest.MonkeyPatch.context() as patch, worker_queue() as own, self.assertLogs(CARE, "WARNING") as logs:
                patch.setitem(connection.settings_dict, "CONN_MAX_AGE", age)
                queue.add_jobs(JobSpec(name, {"to": f"{number}, {age}"}) for number, name in enumerate(names))
                assert own.run_once(1).completed == 5
            assert len(logs.records) == 2
        assert sorted(Letter.objects.values_list("to", flat=True)) == ["1, 0", "1, None", "3, 0", "3, None"]

    def test_looking_for_tasks_keeps_no_connection(self) -> None:
        connections.close_all()
        with pytest.MonkeyPatch.context() as patch, worker_queue() as own:
            patch.setitem(connection.settings_dict, "CONN_MAX_AGE", None)
            with WorkerPool(own, 1):
                assert connection.connection is None

    def test_a_worker_has_connections_of_its_own_and_closes_those_of_handlers(self) -> None:
        done = threading.Event()
        unsubscribe = queue.events.subscribe(JobCompleted, lambda event: done.set())
        queue.add_job("look_around", {})
        with worker_queue() as own, WorkerPool(own, 1):
            assert done.wait(30)
        unsubscribe()
        assert set(Letter.objects.values_list("to", flat=True)) == {"handler", "helper", "kept"}
        assert sorted(job.task_identifier for job in queue.jobs()) == ["send_letter", "somewhere_else"]
        assert seen["handler"].connection is None
        assert seen["helper"].connection is None


class WithNone(SimpleTestCase):
    """A test that may ask no database; what it did there would stay."""

    @classmethod
    def setUpClass(cls) -> None:
        connection.ensure_connection()
        super().setUpClass()

    def test_adding_is_asking(self) -> None:
        with pytest.raises(DatabaseOperationForbidden, match="not allowed in SimpleTestCase"):
            send_letter.add_job({"to": "ann"})
