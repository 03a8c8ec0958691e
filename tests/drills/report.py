"""What came of the drills: a table for the terminal, JSON, the page docs/drills.md, and a plot for each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import attrs
import cattrs

from drills.catalogue import DRILLS, Result
from drills.producer import RATE

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "drills.md"
PLOTS = ROOT / "docs" / "drills.svg"

HEAD = """# Drills

What is done to a fleet under load, and what came of it. `make drills` runs them all, in under an hour, and writes this
page; `make drills ARGS=--list` lists them, and `make drills ARGS="frozen failover"` runs some.

Each drill has a PostgreSQL of its own and offers it {rate} jobs a second: plain ones, jobs of 60 named queues, jobs
with keys that are replaced before they are due, jobs that fail at first, and some that are rolled back. Two worker
processes with eight threads each do them. Every attempt is written down when it begins and when it has had its effect,
in a ledger on a *second* server, together with every add and what came of it. Then the fault is injected, and
afterwards the record must show that

- every job whose add was committed was done, and none whose add was rolled back was begun;
- no job ran twice at a time while its first holder was alive, and no named queue ran two of its jobs at a time, or out
  of order;
- nothing was done again but what was in flight when a fault hit its holder;
- attempts are those the handlers failed and the faults spent, and `last_error` says why;
- workers ended with the documented exit code, and left no lock, no session, no thread and no open file behind.

The figures below are those of each drill's last run at full length, on {machine}.

"""


def rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def figures_of(result: Result) -> str:
    """Return the figures that say something."""
    told = [figure for figure in result.figures if not (figure.quiet and figure.holds)]
    return "; ".join(f"{one.name} {rounded(one.value)}{f' ({one.limit})' if one.limit else ''}" for one in told)


def reason(result: Result) -> str:
    """Return the first thing that went wrong, on one line that fits into a table."""
    return result.problems[0].strip().splitlines()[-1][:160].replace("|", "/")


def line(result: Result) -> str:
    """Return a line for the terminal, and one for each problem."""
    verdict = "passed" if result.passed else "FAILED"
    short = " (short)" if result.short else ""
    text = f"{verdict}  {result.name}{short}  {result.seconds:.0f} s  {figures_of(result)}"
    return "\n".join([text, *(f"        {problem}" for problem in result.problems)])


def save(results: Iterable[Result], machine: str, path: Path = RESULTS) -> list[Result]:
    """Put results in the place of older ones of the same drills; return all, in the order of the catalogue."""
    before = load(path)[0] if path.exists() else []
    found = {result.name: result for result in (*before, *results) if result.name in DRILLS}
    kept = [found[name] for name in DRILLS if name in found]
    lines = ",\n".join(json.dumps(attrs.asdict(result), ensure_ascii=False) for result in kept)
    path.write_text(f'{{"machine": {json.dumps(machine)},\n"results": [\n{lines}\n]}}\n', "utf-8")
    return kept


def load(path: Path = RESULTS) -> tuple[list[Result], str]:
    """Return the results that were saved, and on what machine they came out."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return cattrs.structure(found["results"], list[Result]), found["machine"]


def page(results: list[Result], machine: str) -> str:
    """Return the text of the page."""
    rows = ["| Drill | What is done | What has to come of it | Figures | |", "|---|---|---|---|---|"]
    of_name = {result.name: result for result in results}
    for drill in DRILLS.values():
        result = of_name.get(drill.name)
        if result is None:
            rows.append(f"| {drill.name} | {drill.fault} | {drill.passes} | - | **not run** at full length yet |")
            continue
        verdict = "passed" if result.passed else f"**failed**: {reason(result)}"
        figures = figures_of(result) or "-"
        rows.append(f"| {drill.name} | {drill.fault} | {drill.passes} | {figures} | {verdict} |")
    plots = (
        "\n\nJobs done in each second of each drill; what is shaded is the fault.\n\n![rate over time](drills.svg)\n"
    )
    return HEAD.format(rate=RATE, machine=machine) + "\n".join(rows) + plots


WIDTH, HEIGHT, GAP, LEFT = 760, 60, 34, 10


def plots(results: list[Result]) -> str:
    """Return an SVG with a panel for each drill."""
    height = len(results) * (HEIGHT + GAP) + GAP
    panels = "\n".join(_panel(result, GAP + place * (HEIGHT + GAP)) for place, result in enumerate(results))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2 * LEFT} {height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#fff"/>\n{panels}\n</svg>\n'
    )


def _panel(result: Result, top: int) -> str:
    seconds = max(1, len(result.rate))
    most = max([*result.rate, 1])
    across, up = WIDTH / seconds, HEIGHT / most
    shades = [
        f'<rect x="{LEFT + began * across:.1f}" y="{top}" width="{max(1.0, (ended - began) * across):.1f}" '
        f'height="{HEIGHT}" fill="#e33" opacity="0.25"><title>{escape(kind)}</title></rect>'
        for kind, began, ended in result.faults
    ]
    points = " ".join(
        f"{LEFT + (second + 0.5) * across:.1f},{top + HEIGHT - count * up:.1f}"
        for second, count in enumerate(result.rate)
    )
    label = f"{result.name}: {seconds} s, up to {most} jobs/s{'' if result.passed else ', failed'}"
    return "\n".join(
        [
            f'<text x="{LEFT}" y="{top - 6}" fill="#222">{escape(label)}</text>',
            *shades,
            f'<path d="M{LEFT} {top + HEIGHT}h{WIDTH}" stroke="#999"/>',
            f'<polyline points="{points}" fill="none" stroke="#1a6" stroke-width="1.2"/>',
        ]
    )


def publish(results: list[Result], machine: str) -> None:
    """Write the page and its plots."""
    PAGE.write_text(page(results, machine), "utf-8")
    PLOTS.write_text(plots(results), "utf-8")
