"""The files of examples/deploy: the page shows them, linters find nothing, and the worker runs by them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import ROOT, graphile

from graphile_worker_py import Queue

DEPLOY = ROOT / "examples" / "deploy"
SCRIPTS = Path(sys.executable).parent
Lint = Callable[[Path], str]


def output(*command: str | Path) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, check=False
    )
    return done.stdout if done.stdout or not done.returncode else f"exit code {done.returncode}"


def lint_unit(path: Path) -> str:
    """Return what systemd says of a unit file, of which the command is looked for where ours is."""
    unit = path.parent / "linted" / "worker.service"
    unit.parent.mkdir(exist_ok=True)
    unit.write_text(path.read_text().replace("/srv/app/.venv/bin", str(SCRIPTS)))
    said = output("systemd-analyze", "verify", "--man=no", unit)
    return "\n".join(line for line in said.splitlines() if "worker.service" in line)  # and not of the machine's own


def lint_image(path: Path) -> str:
    return output(SCRIPTS / "hadolint", path)


def lint_manifest(path: Path) -> str:
    versions = [[], ["-k", "1.27.0"]]
    return "".join(
        output(sys.executable, "-m", "kubernetes_validate", "--strict", "--quiet", *version, path)
        for version in versions
    )


# What each linter needs, and a change that it must find.
LINTERS: dict[str, tuple[Lint, bool, tuple[str, str]]] = {
    "worker.service": (lint_unit, shutil.which("systemd-analyze") is not None, ("KillMode=", "KilMode=")),
    "Dockerfile": (lint_image, (SCRIPTS / "hadolint").exists(), ("--no-cache-dir ", "")),
    "kubernetes.yaml": (lint_manifest, find_spec("kubernetes_validate") is not None, ("failureThreshold", "tries")),
}


@pytest.mark.parametrize("name", LINTERS)
def test_linters_find_nothing_unless_there_is_something(name: str, tmp_path: Path) -> None:
    lint, is_there, (right, wrong) = LINTERS[name]
    if not is_there:
        pytest.skip(f"the linter of {name} is not installed")
    path = tmp_path / name
    text = (DEPLOY / name).read_text()
    path.write_text(text)
    assert lint(path) == ""
    assert right in text
    path.write_text(text.replace(right, wrong))
    assert lint(path) != ""


def test_the_page_shows_the_files_as_they_are() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    names = [path.name for path in DEPLOY.iterdir() if path.suffix not in (".py", ".txt") and path.is_file()]
    assert [name for name in names if f"```text\n{(DEPLOY / name).read_text()}```\n" not in page] == []


def test_whoever_stops_a_worker_waits_longer_than_it_does() -> None:
    (grace,) = re.findall(r"grace = (\d+)", (DEPLOY / "graphile-worker-py.toml").read_text())
    for name, key in (("worker.service", "TimeoutStopSec="), ("kubernetes.yaml", "terminationGracePeriodSeconds: ")):
        (seconds,) = re.findall(rf"{key}(\d+)", (DEPLOY / name).read_text())
        assert int(seconds) >= int(grace) + 10


def test_the_worker_runs_by_its_file(migrated_url: str, queue: Queue, tmp_path: Path) -> None:
    for name in ("jobs.py", "graphile-worker-py.toml"):
        shutil.copy(DEPLOY / name, tmp_path)
    queue.add_job("greet", {"name": "you"})
    more = {"DATABASE_URL": migrated_url, "GRAPHILE_WORKER_HEALTH_PORT": "127.0.0.1:0"}
    done = graphile("run", "--once", cwd=tmp_path, more=more)
    assert done.returncode == 0
    assert done.stdout.startswith("hello you\n1 completed")
    assert all(line.startswith('{"time": ') for line in done.stderr.splitlines())
