"""The benchmarks start, measure and end, at sizes of seconds; what they check can fail; the page is what they found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
PARTS = {
    "bench": (
        *("throughput", "defaults", "one command", "history"),
        *("adding", "adding one by one", "latency", "idle", "commands"),
    ),
    "scale": ("checks", "cliffs", "width", "backlog", "handlers", "snapshot"),
}


# By part, case, side and name: the runs.
Figures = dict[str, dict[str, dict[str, dict[str, list[float]]]]]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the modules of the benchmarks be imported, in a test only: their names are common ones."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def measured(url: str, program: str, folder: Path, *options: str) -> Figures:
    """Run a program at its smallest, and return the figures it wrote."""
    from sides import node_is_missing

    path = folder / "figures.json"
    command = [sys.executable, f"{BENCHMARKS / program}.py", url, "--rounds=1", "--scale=0.0001", f"--json={path}"]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(path.read_text())
    assert record["about"]["synchronous_commit"] in ("on", "off")
    for part in record["figures"]:
        assert f"-- {part}" in done.stdout  # the table
    missing = {name for name, note in record["notes"].items() if "Not measured" in note}
    assert missing <= ({"Node's worker"} if node_is_missing() else set()), record["notes"]
    figures: Figures = record["figures"]
    return figures


@pytest.mark.parametrize("program", PARTS)
@pytest.mark.parametrize("option", ["--only=nonsense", "--rounds=0", "--scale=0"])
def test_what_would_measure_nothing_is_refused(database_url: str, program: str, option: str) -> None:
    command = [sys.executable, f"{BENCHMARKS / program}.py", database_url, option]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{program}.py: error: " in done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "part", [(program, part) for program, parts in PARTS.items() for part in parts], ids=lambda part: part[1]
)
def test_a_part_is_measured(database_url: str, tmp_path: Path, part: tuple[str, str]) -> None:
    from sides import node_is_missing

    program, name = part
    figures = measured(database_url, program, tmp_path, "--only", name)
    assert list(figures) == [name]
    sides = [side for case in figures[name].values() for side in case]
    assert sides
    if name in ("throughput", "defaults", "adding", "latency", "idle") and not node_is_missing():
        assert any(side.startswith("Node 0.18.0") for side in sides), sides
    for case in figures[name].values():
        for side, found in case.items():
            first, runs = next(iter(found.items()))
            assert all(run > 0 for run in runs) or name in ("idle", "latency"), (side, first, runs)


def test_cron_is_measured(database_url: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "cron.py"), database_url, "--items", "10", "--rounds", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    assert re.search(r"10 items due in one minute: median \d", done.stdout)


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.version_info < (3, 11), reason="chancy needs Python 3.11")
def test_peers_are_measured(database_url: str, tmp_path: Path) -> None:
    figures = measured(database_url, "bench", tmp_path, "--only", "peers", "--peers")
    (sides,) = figures["peers"].values()
    assert [re.split("[ ,]", side)[0] for side in sides] == [
        "ours",
        "procrastinate",
        "pgqueuer",
        "chancy",
        "awa-pg",
        "dramatiq-pg",
        "huey",
    ]


def test_a_peer_that_cannot_be_installed_is_noted(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import measuring
    import peers

    def refused(peer: peers.Peer) -> Path:
        raise subprocess.CalledProcessError(1, ["pip"], stderr="ERROR: no such version\n")

    monkeypatch.setattr(peers, "installed", refused)
    bench = measuring.Bench(database_url, rounds=0, scale=1, only=[])
    peers.measure(bench)
    assert len(bench.notes) == len(peers.PEERS)
    assert set(bench.notes.values()) == {"Not measured, it could not be installed: ERROR: no such version"}


def test_a_side_that_does_not_start_says_why(database_url: str) -> None:
    import measuring

    broken = measuring.Side(
        "broken", lambda url, jobs: ([], {}), lambda url: ([sys.executable, "-c", "1 / 0"], dict(os.environ))
    )
    with (
        pytest.raises(SystemExit, match=r"(?s)broken did not start: .*ZeroDivisionError"),
        measuring.started(broken, database_url),
    ):
        pass


def test_broken_promises_are_found() -> None:
    import checks

    def run(id: int, began: float, *, queue: str = "-", locked_at: float = 0.0) -> checks.Run:
        return checks.Run(id, queue, began, began + 1.0, locked_at, (0, 0.0, id))

    assert [len(runs) for runs in checks.by_queue([run(1, 0.0), run(2, 1.0, queue="a"), run(3, 2.0, queue="a")])] == [2]
    assert checks.overlaps([run(1, 0.0), run(2, 1.0), run(3, 1.5)]) == 1
    assert checks.disorder([run(1, 0.0), run(3, 1.0), run(2, 2.0)]) == 1
    assert (
        checks.claim_disorder([run(2, 0.0, locked_at=1.0), run(1, 0.0, locked_at=1.0), run(3, 0.0, locked_at=2.0)]) == 0
    )
    assert (
        checks.claim_disorder([run(1, 0.0, locked_at=1.0), run(3, 0.0, locked_at=1.0), run(2, 0.0, locked_at=2.0)]) == 1
    )


def test_a_broken_promise_ends_the_program(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import checks
    import measuring

    monkeypatch.setattr(checks, "disorder", lambda runs: 1)
    bench = measuring.Bench(database_url, rounds=1, scale=0, only=[])
    with pytest.raises(SystemExit, match=r"a promise was broken: a case: .*'out of order in a queue': "):
        checks.one(bench, "a case", queues=2, processes=1)


def test_addresses_are_read_alike_by_all_peers() -> None:
    import peers

    assert peers.as_url("host=/tmp/socket port=5433 user=me dbname=app") == (
        "postgresql://me@localhost:5433/app?host=%2Ftmp%2Fsocket"
    )
    assert peers.as_url("postgresql://me:p%40ss@db:5433/app") == "postgresql://me:p%40ss@db:5433/app"


def test_the_page_is_what_the_figures_say() -> None:
    import report

    bench, scale = report.read("bench"), report.read("scale")
    again = "run `python benchmarks/report.py`"
    assert report.PAGE.read_text("utf-8") == report.page(bench, scale), again
    assert report.PLOT.read_text("utf-8") == report.plot(bench), again
    assert not re.search(r"\{\{.*\}\}", report.page(bench, scale))


def test_the_page_shows_medians_ratios_and_what_is_missing() -> None:
    import report

    about = dict.fromkeys(report.read("bench")["about"], "1") | {"scale": 0.5, "minutes": 1}
    sides = {"ours": {"jobs/s": [300.0, 100.0, 200.0]}, "theirs": {"jobs/s": [50.0, 50.0, 50.0]}}
    record = {"about": about, "notes": {"theirs": "a note"}, "figures": {"throughput": {"fresh": sides}}}
    page = report.page(record, {**record, "figures": {}, "notes": {}})
    assert "| ours | 200 (100 to 300) | 1.00x |\n" in page
    assert "| theirs | 50 (50 to 50) | 4.00x |\n" in page
    assert "Not measured in this run." in page
    assert "- theirs: a note\n" in page
    assert "trial run at 0.5 of the sizes" in page
    assert "trial run" not in report.page(
        {**record, "about": {**about, "scale": 1}}, {**record, "about": {**about, "scale": 1.0}}
    )
    assert report.table(record).splitlines()[-3].split() == ["fresh", "theirs", "50", "(50", "to", "50)", "4.00x"]
