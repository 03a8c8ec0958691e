"""Turn the figures of results/*.json into one table for the terminal, the page docs/performance.md, and its plot.

    python benchmarks/report.py

The words of the page are in performance.in.md, by hand; a line {{name}} is replaced by a table of figures.
"""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
TEMPLATE = HERE / "performance.in.md"
PAGE = HERE.parent / "docs" / "performance.md"
PLOT = HERE.parent / "docs" / "performance.svg"

Record = dict[str, Any]
Sides = dict[str, dict[str, list[float]]]

# For a part: the last column, by the first figure of a side, that of the first side of the case, and the best of them.
RATIOS: dict[str, tuple[str, Callable[[float, float, float], float]]] = {
    **dict.fromkeys(
        ("throughput", "defaults", "one command", "history", "adding", "adding one by one", "peers", "handlers"),
        ("ours is", lambda own, first, best: first / own),
    ),
    "cliffs": ("of the first", lambda own, first, best: own / first),
    "width": ("of the best", lambda own, first, best: own / best),
}


def read(name: str) -> Record:
    """Return the record of a file in results/."""
    record: Record = json.loads((HERE / "results" / f"{name}.json").read_text("utf-8"))
    return record


def shown(figure: float) -> str:
    """Return a figure with three digits or so."""
    if not figure or abs(figure) >= 100 or (figure == int(figure) and figure < 1e6):
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}" if abs(figure) >= 0.1 else f"{figure:.3g}"


def rows(part: str, cases: dict[str, Sides]) -> Iterator[list[str]]:
    """Yield the heads of a part's table, then its rows: medians, and of the first figure the lowest and highest."""
    names = list(dict.fromkeys(name for sides in cases.values() for figures in sides.values() for name in figures))
    head, ratio = RATIOS.get(part, ("", None))
    ratio = ratio if any(len(sides) > 1 for sides in cases.values()) else None
    yield ["", "", *names, *([head] if ratio else [])]
    for case, sides in cases.items():
        middles = [statistics.median(next(iter(figures.values()))) for figures in sides.values()]
        for (side, figures), own in zip(sides.items(), middles, strict=True):
            cells = [cell(figures.get(name), spread=name == names[0]) for name in names]
            if ratio:
                cells.append(f"{ratio(own, middles[0], max(middles)):.2f}x" if own else "")
            yield [case, side, *cells]


def cell(runs: list[float] | None, *, spread: bool) -> str:
    """Return what a table shows of the runs of one figure."""
    if runs is None:
        return ""
    text = shown(statistics.median(runs))
    return f"{text} ({shown(min(runs))} to {shown(max(runs))})" if spread and len(runs) > 1 else text


def table(record: Record) -> str:
    """Return all figures of a record for a terminal, after what has to be known beside them."""
    lines = [", ".join(f"{name} {value}" for name, value in record["about"].items())]
    for part, cases in record["figures"].items():
        found = list(rows(part, cases))
        widths = [max(map(len, column)) for column in zip(*found, strict=True)]
        lines += ["", f"-- {part}"]
        for row in found:
            cells = [
                text.ljust(width) if n < 2 else text.rjust(width)
                for n, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
    lines += ["", *(f"{name}: {note}" for name, note in record["notes"].items())]
    return "\n".join(lines).rstrip()


def markdown(part: str, cases: dict[str, Sides] | None) -> str:
    """Return the table of a part for the page."""
    if not cases:
        return "Not measured in this run."
    heads, *body = rows(part, cases)
    kept = [n for n, head in enumerate(heads) if n > 1 or any(row[n] != body[0][n] for row in body)]
    lines = [
        "| " + " | ".join(heads[n] for n in kept) + " |",
        "|" + "|".join("---" if n < 2 else "---:" for n in kept) + "|",
    ]
    before = None
    for row in body:
        cells = [("" if n == 0 and row[0] == before else row[n]) for n in kept]
        lines.append("| " + " | ".join(cells) + " |")
        before = row[0]
    return "\n".join(lines)


def about(record: Record) -> str:
    """Return the machine, versions and settings as a sentence or two."""
    facts = record["about"]
    text = (
        f"{facts['date']}: {facts['cpu']}, {facts['cores']} cores shared with the server, {facts['memory_gb']} GB; "
        f"PostgreSQL {facts['server_version'].split()[0]} over a {facts['connection']}, fsync {facts['fsync']}, "
        f"synchronous_commit {facts['synchronous_commit']}, full_page_writes {facts['full_page_writes']}, "
        f"shared_buffers {facts['shared_buffers']}; Python {facts['python']}, psycopg {facts['psycopg']}, "
        f"graphile-worker-py {facts['graphile-worker-py']}"
        + (f", Node.js {facts['node']}" if facts.get("node") else "")
        + f". Medians of at most {facts['rounds']} rounds, {facts['minutes']:.0f} minutes in all."
    )
    return textwrap.fill(text, 120)


def trial(bench: Record, scale: Record) -> str:
    """Return a warning for each run that was a small one."""
    small = {name: run["about"]["scale"] for name, run in (("bench", bench), ("bench-scale", scale))}
    texts = [
        f"**The figures of `make {name}` on this page come from a trial run at {size} of the sizes: starts and ends of "
        "processes outweigh the work, so they say nothing about speed.**"
        for name, size in small.items()
        if size != 1
    ]
    return "".join(f"{textwrap.fill(text, 120)}\n\n" for text in texts)


def page(bench: Record, scale: Record) -> str:
    """Return the page."""
    parts = {**bench["figures"], **scale["figures"]}
    made = TEMPLATE.read_text("utf-8")
    for name in sorted({*parts, *RATIOS, "latency", "idle", "commands", "backlog", "snapshot", "checks"}):
        made = made.replace(f"{{{{{name}}}}}", markdown(name, parts.get(name)))
    notes = {**bench["notes"], **scale["notes"]}
    made = made.replace("{{notes}}", "\n".join(f"- {name}: {note}" for name, note in notes.items()))
    made = made.replace("{{trial}}\n\n", trial(bench, scale))
    return made.replace("{{about bench}}", about(bench)).replace("{{about scale}}", about(scale))


def plot(bench: Record) -> str:
    """Return the throughput of every side in every case as bars."""
    cases: dict[str, Sides] = bench["figures"].get("throughput", {})
    bars = [
        (case, side, statistics.median(figures["jobs/s"]))
        for case, sides in cases.items()
        for side, figures in sides.items()
    ]
    most = max((rate for *_, rate in bars), default=1.0)
    colours = dict(zip(dict.fromkeys(side for _, side, _ in bars), ("#2f6f4f", "#c8893b", "#8d97a5"), strict=False))
    drawn, y, last = [], 16, ""
    for case, side, rate in bars:
        if case != last:
            y += 22 if last else 0
            drawn.append(f'<text x="16" y="{y + 6}" font-weight="bold">{escape(case)}</text>')
            y, last = y + 16, case
        width = round(430 * rate / most)
        drawn += [
            f'<text x="16" y="{y + 12}">{escape(side)}</text>',
            f'<rect x="170" y="{y}" width="{width}" height="16" fill="{colours.get(side, "#8d97a5")}"/>',
            f'<text x="{178 + width}" y="{y + 12}">{rate:,.0f}</text>',
        ]
        y += 21
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{y + 14}" viewBox="0 0 680 {y + 14}"'
            ' font-family="sans-serif" font-size="12" fill="#222" role="img">',
            "<title>No-op jobs drained a second, more is better</title>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            *drawn,
            "</svg>\n",
        ]
    )


def main() -> None:
    """Write the page and its plot."""
    bench, scale = read("bench"), read("scale")
    PAGE.write_text(page(bench, scale), "utf-8")
    PLOT.write_text(plot(bench), "utf-8")
    print(f"{PAGE} and {PLOT} are written")


if __name__ == "__main__":
    main()
