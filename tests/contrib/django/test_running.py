"""run_jobs(), in the two kinds of tests that Django has."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase
from pigeon.models import Letter
from pigeon.tasks import send_letter

from graphile_worker_py.contrib.django import forget_jobs, queue, run_jobs

from .test_adding import committed


@queue.task
def write_twice(payload):
    """Break the transaction, where there is one, and go on."""
    Letter.objects.create(to="first")
    with pytest.raises(IntegrityError):
        Letter.objects.create(to="first")


@queue.task
def fail_in_sql(payload):
    """Break it by a cursor, and fail."""
    Letter.objects.create(to="second")
    with connection.cursor() as cursor:
        cursor.execute("select 1 / 0")


@queue.task
def write_and_complete(payload, ctx):
    """Be done in the transaction that the handler's rows are written in."""
    with transaction.atomic(durable=True):
        Letter.objects.create(to="third")
        ctx.complete(connection.connection)
        ctx.add_job("send_letter", {"to": "third"})


class InATest(TestCase):
    """All of it is in the transaction of the test."""

    def test_due_jobs_run_and_those_they_add(self) -> None:
        Letter.objects.create(to="ann")
        send_letter.add_job({"to": "ann"})
        queue.add_job("write_and_complete")
        done = run_jobs()
        assert done.tasks == ["send_letter", "write_and_complete", "send_letter"]
        assert not done.failed
        assert [letter.sent for letter in Letter.objects.order_by("id")] == [True, True]
        assert committed() == 0

    def test_the_first_failure_is_raised_or_all_are_returned(self) -> None:
        job = send_letter.add_job({"to": "nobody"})
        with pytest.raises(ValueError, match="nobody lives there"):
            run_jobs()
        assert queue.job(job.id).attempts == 1
        send_letter.add_job({"to": "nobody"})
        done = run_jobs(raise_errors=False)
        assert [str(failed.exception) for failed in done.failed] == ["nobody lives there"]

    def test_a_handler_that_breaks_the_transaction_breaks_nothing_else(self) -> None:
        queue.add_job("write_twice")
        queue.add_job("fail_in_sql")
        done = run_jobs(raise_errors=False)
        assert done.tasks == ["write_twice", "fail_in_sql"]
        assert [job.task_identifier for job in done.completed] == ["write_twice"]
        assert isinstance(done.failed[0].exception, DatabaseError)
        assert Letter.objects.count() == 0

    def test_a_broken_transaction_of_the_test_says_so(self) -> None:
        with transaction.atomic():
            transaction.set_rollback(True)
            with pytest.raises(transaction.TransactionManagementError):
                run_jobs()


class InNone(TransactionTestCase):
    """All of it is committed, statement by statement, as in a worker."""

    def tearDown(self) -> None:
        forget_jobs()

    def test_due_jobs_run_and_are_committed(self) -> None:
        Letter.objects.create(to="ann")
        send_letter.add_job({"to": "ann"})
        queue.add_job("write_twice")
        queue.add_job("fail_in_sql", queue_name="one by one")
        queue.add_job("write_and_complete", run_at=None)
        done = run_jobs(raise_errors=False)
        assert len(done.completed) == 4
        assert [failed.job.task_identifier for failed in done.failed] == ["fail_in_sql"]
        assert set(Letter.objects.values_list("to", "sent")) == {
            *(("ann", True), ("first", False), ("second", False), ("third", True))
        }
        assert committed() == 1
