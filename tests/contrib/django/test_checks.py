"""What Django's checks say about the settings, and what those hear who use the queue all the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.postgresql.base import is_psycopg3
from django.test import TestCase, override_settings

from graphile_worker_py.contrib.django import queue, worker_queue

MISTAKES: list[tuple[Any, str, str]] = [
    (["DATABASE"], "E001", "of type list"),
    ({"SCHEMAA": "x"}, "E002", "no option 'SCHEMAA'.*mean 'SCHEMA'"),
    ({"schema": "x"}, "E002", "no option 'schema'.*mean 'SCHEMA'"),
    ({"BROKER": "x"}, "E002", "no option 'BROKER'.*There is DATABASE"),
    ({"DATABASE": "defualt"}, "E003", "'defualt'.*mean 'default'"),
    ({"DATABASE": ["default"]}, "E003", "which DATABASES has not"),
    ({"DATABASE": "file"}, "E004", "kept in PostgreSQL.*sqlite3.*engine is django.db.backends.postgresql"),
    ({"SCHEMA": "pg_jobs"}, "E005", "start with pg_"),
    ({"MAX_SIZE": "ten"}, "E005", "max_size: expected an int"),
    ({"AROUND": "pigeon.nothing.around"}, "E005", "pigeon.nothing"),
    ({"CONCURRENCY": 0}, "E006", "concurrency: expected"),
    ({"HISTORY": "7d"}, "E006", "history: expected"),
    ({"CRONTAB": ["* * * * * send_letter"]}, "E006", "crontab: expected a str"),
]


def told(**options: Any) -> list[str]:
    found = run_checks(tags=["graphile_worker"], **options)
    return [f"{message.id}: {message.msg} {message.hint}" for message in found]


class InATest(TestCase):
    """A check never fails for a database that is away: these connect to none, but for that of the schema."""

    def test_all_is_well(self) -> None:
        assert told(databases=["default", "other"], include_deployment_checks=True) == []

    def test_each_mistake_is_told_by_its_number_and_by_the_queue(self) -> None:
        for setting, number, words in MISTAKES:
            with self.subTest(setting), override_settings(GRAPHILE_WORKER=setting):
                (text,) = told(databases=["default"], include_deployment_checks=True)
                assert re.match(rf"graphile_worker\.{number}: .*{words}", text), text
                if number != "E006":  # that is for workers
                    with pytest.raises(ImproperlyConfigured, match=words):
                        queue.add_job("send_letter")
        assert queue.add_job("send_letter").task_identifier == "send_letter"

    def test_a_schema_that_is_not_there_says_how_to_make_it(self) -> None:
        with override_settings(GRAPHILE_WORKER={"SCHEMA": "no one's"}):
            assert told() == told(databases=["default"]) == []
            (text,) = told(databases=["default"], include_deployment_checks=True)
            assert re.search(r"E007: .*\"no one's\".*not installed.*manage.py migrate --database default", text)

    def test_a_pool_that_is_too_small_for_the_worker_is_told(self) -> None:
        database = connections["default"].settings_dict
        with pytest.MonkeyPatch.context() as patch:
            for pool, largest in ((True, 4), ({"max_size": 7}, 7)):
                patch.setitem(database, "OPTIONS", {"pool": pool})
                (text,) = told()
                if not is_psycopg3:
                    assert "E004" in text
                    return  # as Django says: psycopg2 has no pool
                assert re.search(rf"W001: .*at most {largest} connections.*8 jobs", text)
            patch.setitem(database, "OPTIONS", {"pool": {"max_size": 8}})
            assert told() == []

    def test_a_worker_connects_as_django_does(self) -> None:
        database = connections["default"].settings_dict
        options = {"sslmode": "prefer", "application_name": "post", "assume_role": "some one", "pool": is_psycopg3}
        given = {"GRACE": 7, "CONNECT_TIMEOUT": 3, "RETRY_ON": OSError, "AROUND": "contextlib.nullcontext"}
        with pytest.MonkeyPatch.context() as patch, override_settings(GRAPHILE_WORKER=given):
            patch.setitem(database, "OPTIONS", options)
            made = worker_queue()
            source = str(made.database.source)
            assert f"dbname={settings.DATABASES['default']['NAME']}" in source
            assert "test_" in source
            assert "application_name=post" in source
            assert r"options='-c role=some\\ one'" in source
            assert made.retry == queue.retry != worker_queue.__globals__["Queue"]().retry
            assert made.around is not queue.around is not None
            assert made.database.connect_timeout == 3
