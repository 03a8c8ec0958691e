"""How the tests of the doctor ask it: with a queue, for one check, until it says what it should."""

from __future__ import annotations

from typing import Any

import psycopg
from plain_sql import eventually

from graphile_worker_py import Queue, doctor
from graphile_worker_py.doctor import Finding, Thresholds

NOTHING: list[Finding] = []


def findings(queue: Queue, check: str, **thresholds: Any) -> list[Finding]:
    """Return what one check finds, but for that all is well."""
    others = [name for name in doctor.CHECKS if name not in (check, "schema")]
    found = doctor.examine(queue, skip=others, thresholds=Thresholds(**thresholds))
    assert {finding.check for finding in found} == {check, "schema"}
    return [finding for finding in found if finding.check == check and finding.level != "ok"]


def assert_mended(db: psycopg.Connection, queue: Queue, found: Finding, **thresholds: Any) -> None:
    """Do what a finding says, and see it gone."""
    assert found.sql, found
    for statement in found.sql:
        db.execute(statement.encode())
    eventually(lambda: all(other.what != found.what for other in findings(queue, found.check, **thresholds)))


def one(found: list[Finding], level: str, *texts: str) -> Finding:
    """Return the one finding of this level that says these texts."""
    (match,) = [each for each in found if each.level == level and all(text in each.what for text in texts)] or [None]
    assert match is not None, found
    assert match.do, match
    return match


def update_jobs(db: psycopg.Connection, what: str, where: str = "true") -> None:
    """Change jobs."""
    db.execute(f"update graphile_worker._private_jobs set {what} where {where}".encode())  # noqa: S608
