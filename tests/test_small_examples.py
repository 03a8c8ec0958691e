"""The programs of one file in examples/ do what they say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command_line import ROOT

PRINTED = {
    "time_limits": [
        "the time is over at row ...: another job goes on",
        "exported 80 rows",
        "cancelled while it was running",
        "JobCancelled: cancelled: not needed any more",
    ],
    "transactions": [
        "60 jobs done, 10 failures on the way",
        "ann: 70, bob: 30 and 30 receipts",
    ],
    "context": [
        "span import_articles begins",
        "WARNING in import_articles, attempt 1: an empty line",
        "span import_articles ends",
        "seen on the way: True, in order: True",
    ],
}


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_did(name: str, database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py")],
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    lines = [line.partition(" at row ")[0] for line in done.stdout.splitlines()]
    assert list(dict.fromkeys(lines)) == [line.partition(" at row ")[0] for line in PRINTED[name]]
