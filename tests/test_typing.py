"""What typed users write passes pyright too; that mypy agrees is seen by `make types`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT

PYRIGHT = [sys.executable, "-m", "pyright"]
MISTAKEN = """
from graphile_worker_py import Queue, Snooze
queue = Queue()
@queue.task
def count(payload: list[int]) -> None: ...
count.add_job([1])
count.add_job(["a"])
count.add_job()
count.add_job([1])  # type: ignore[arg-type]
"""


@pytest.fixture(scope="module", autouse=True)
def runs() -> None:
    """Skip where pyright cannot be run: it takes Node.js, and fetches itself from npm the first time."""
    tried = subprocess.run([*PYRIGHT, "--version"], check=False, capture_output=True, text=True, timeout=110)
    if tried.returncode:
        pytest.skip(f"pyright does not run here: {tried.stderr.strip().splitlines()[-1:]}")


def checked(*files: Path) -> list[dict[str, Any]]:
    """Return what pyright says of these files, or else of what the project has it check."""
    what = [str(file) for file in files] or ["--project", str(ROOT)]
    found = subprocess.run(
        [*PYRIGHT, "--outputjson", "--pythonpath", sys.executable, *what],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        cwd=files[0].parent if files else ROOT,
    )
    told = json.loads(found.stdout)
    assert told["summary"]["filesAnalyzed"] > 0
    return list(told["generalDiagnostics"])


def test_pyright_finds_nothing_wrong_with_what_typed_users_write() -> None:
    assert checked() == []


def test_pyright_finds_what_is_wrong(tmp_path: Path) -> None:
    mistaken = tmp_path / "mistaken.py"
    mistaken.write_text(f"# pyright: reportUnnecessaryTypeIgnoreComment=error\n{MISTAKEN}", "utf-8")
    assert [(one["range"]["start"]["line"], one["severity"]) for one in checked(mistaken)] == [
        (7, "error"),
        (8, "error"),
        (9, "error"),
    ]
