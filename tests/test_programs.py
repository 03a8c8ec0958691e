"""The programs in examples/ that are one file each run, and print what they are there to show."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from command_line import ROOT

EXAMPLES = ROOT / "examples"


def output(name: str, url: str) -> list[str]:
    """Run a program on a database of its own, and return the lines it prints."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, [line for line in ran.stderr.splitlines() if line.startswith("Traceback")]) == (0, [])
    return ran.stdout.splitlines()


def test_typed_payloads(database_url: str) -> None:
    assert output("typed_payloads.py", database_url) == [
        "charge 12.50 EUR for order 7 until 31 January",
        "refund order 7: broken",
        "send 'hello' to ann@example.com",
        "send 'hello again' to bob@example.com",
        "sign up Cid, 42",
        "charge cannot be done:",
        "    payload.order: expected an int, got str",
        "    payload.amount: does not fit Decimal (InvalidOperation)",
        "    payload.currency: does not fit Currency (ValueError)",
        "refund cannot be done:",
        "    payload.order: is missing",
        "    payload.reason: expected a str, got int",
        "send cannot be done:",
        "    payload[1].to: expected a str, got null",
        "    payload[1].subject: is missing",
        "sign_up cannot be done:",
        "    payload.name: string should have at least 1 character",
        "    payload.age: input should be greater than or equal to 18",
        "RunSummary(completed=4, retrying=0, failed=4)",
    ]


def test_retries(database_url: str) -> None:
    asked = r"again in (0:00:0[3-5]|0:01:(2[5-9]|30)|1 day, 23:59:5\d|2 days, 0:00:00),"
    lines = [re.sub(asked, "again as asked,", line) for line in output("retries.py", database_url)]
    assert lines == [
        "weekend: put off, nobody is there",
        "refused: dropped from its batch",
        "RunSummary(completed=1, retrying=3, failed=1)",
        "down: again as asked, attempts made: 1",
        "refused: given up",
        "busy: again as asked, attempts made: 1",
        "weekend: again as asked, attempts made: 0",
        "batch: again as asked, attempts made: 1",
    ]
