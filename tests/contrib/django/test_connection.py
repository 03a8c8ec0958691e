"""connection= takes Django's own connections, on either driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_jobs_are_in_djangos_transaction(migrated_url: str, driver: str) -> None:
    program = Path(__file__).with_name("on_a_connection.py")
    command = [sys.executable, "-W", "error", str(program), driver, migrated_url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "connection: the database 'other' of Django is sqlite; jobs are kept in PostgreSQL",
        "connection: expected an open connection or cursor of psycopg or psycopg2, a Session or Connection of "
        "SQLAlchemy, or a connection of Django; got <class 'str'>",
    ]
