"""Jobs are added in the transaction that the ORM is in, and come and go with it."""

from __future__ import annotations

from contextlib import closing

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.test import TestCase, TransactionTestCase, override_settings
from pigeon.models import Letter
from pigeon.tasks import send_letter

from graphile_worker_py import JobSpec
from graphile_worker_py.contrib.django import queue, run_jobs


def jobs() -> int:
    return len(queue.jobs(limit=10_000))


def committed() -> int:
    """Count the jobs that somebody else sees."""
    with closing(connection.copy()) as other, other.cursor() as cursor:
        cursor.execute("select count(*) from graphile_worker._private_jobs")
        return cursor.fetchone()[0]


class InATest(TestCase):
    """A TestCase is in a transaction that is rolled back, and so are its jobs."""

    def test_a_job_is_seen_where_it_was_added_and_nowhere_else(self) -> None:
        job = send_letter.add_job({"to": "ann"}, queue_name="post", job_key="ann")
        assert job.max_attempts == 3
        assert queue.job(job.id) == job
        assert committed() == 0

    def test_what_is_rolled_back_leaves_nothing(self) -> None:
        for number in range(1000):
            with transaction.atomic():
                Letter.objects.create(to=f"reader {number}")
                send_letter.add_job({"to": f"reader {number}"})
                transaction.set_rollback(True)
        assert jobs() == Letter.objects.count() == 0

    def test_a_broken_block_says_so_as_ever(self) -> None:
        Letter.objects.create(to="ann")
        with transaction.atomic():
            with pytest.raises(IntegrityError):
                Letter.objects.create(to="ann")
            with pytest.raises(transaction.TransactionManagementError, match="end of the 'atomic' block"):
                send_letter.add_job({"to": "ann"})
            transaction.set_rollback(True)
        assert jobs() == 0
        queue.add_jobs(JobSpec("send_letter", {"to": str(number)}) for number in range(3))
        assert jobs() == 3


class InNone(TransactionTestCase):
    """A TransactionTestCase has no transaction of its own."""

    def test_without_a_transaction_it_is_committed_at_once(self) -> None:
        job = queue.add_job("send_letter", {"to": "ann"})
        assert committed() == 1
        queue.complete_jobs([job.id])


class OnAnother(TestCase):
    """The jobs may be in another of DATABASES than the models are."""

    databases = ("default", "other")

    def test_jobs_are_in_the_transaction_of_that_one(self) -> None:
        with override_settings(GRAPHILE_WORKER={"DATABASE": "other"}):
            with transaction.atomic("other"):
                send_letter.add_job({"to": "dropped"})
                transaction.set_rollback(True, "other")
            with transaction.atomic():
                Letter.objects.create(to="ann")
                send_letter.add_job({"to": "ann"})
                transaction.set_rollback(True)
            assert [job.payload for job in run_jobs().completed] == [{"to": "ann"}]
            queue.add_job("elsewhere", connection=connections["default"])
            assert jobs() == 0
        assert jobs() == 1
