"""The small examples: each program is run as its page says, and prints what it should."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_line import ROOT, environment

PRINTS = {
    "results/app.py": ["cheapest carrier: snail, 3.50", "not heard of: tortoise", "fox: the price list is gone"],
    "recipes/chain.py": ["RunSummary(completed=3, retrying=0, failed=0)", "('packed', 1)"],
    "recipes/fan_out.py": ["9 words", "RunSummary(completed=5, retrying=0, failed=0)"],
    "recipes/idempotency.py": [
        "attempt 1: charged",
        "attempt 2: charged before",
        "RunSummary(completed=1, retrying=0, failed=0)",
        "charged in all: 100",
    ],
}


@pytest.mark.parametrize("program", PRINTS)
def test_an_example_prints_what_it_should(program: str, migrated_url: str) -> None:
    path = ROOT / "examples" / program
    done = subprocess.run(
        [sys.executable, "-W", "error", path.name],
        cwd=path.parent,
        env=environment(DATABASE_URL=migrated_url),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, PRINTS[program]), done.stderr
