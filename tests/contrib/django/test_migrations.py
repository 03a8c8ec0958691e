"""Our Django migrations: one for each file in migrations/, and what they do where."""

from __future__ import annotations

from pathlib import Path

from django.core.management import call_command
from django.db import connection
from django.test import TestCase

from graphile_worker_py.contrib.django import migrations

ROOT = Path(__file__).resolve().parents[3]


def test_each_version_of_the_schema_has_a_django_migration() -> None:
    """Whoever adds a file to migrations/ adds a Django migration of its name, or `manage.py migrate` misses it."""
    ours = {path.stem for path in (ROOT / "migrations").glob("*.sql")} - {"000000_ledger"}
    theirs = {path.stem[5:] for path in Path(migrations.__file__).parent.glob("0*.py")}
    assert theirs == ours


class InATest(TestCase):
    """In the test database, which Django has made by running them."""

    def test_they_are_all_there_is_and_none_is_wanting(self) -> None:
        call_command("makemigrations", "graphile_worker", check=True, dry_run=True, verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute("select max(id) from graphile_worker._private_py_migrations")
            assert cursor.fetchone()[0] == len(list((ROOT / "migrations").glob("py_*.sql")))
