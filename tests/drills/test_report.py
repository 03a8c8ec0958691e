"""What is said about the drills: the page is that of the results, and a figure that is out of its limit shows."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest

from drills import catalogue, report
from drills.catalogue import DRILLS, Result
from drills.scene import Figure

catalogue.load()

FINE = Result(
    name="sigterm",
    passed=True,
    short=False,
    seconds=60.0,
    figures=[
        Figure("longest stop (s)", 0.25, "≤ 31", True),
        Figure("exit code of producer-1", 0, "= 0", True, quiet=True),
        Figure("jobs lost", 0, "= 0", True),
    ],
    problems=[],
    rate=[100, 200, 200],
    faults=[("SIGTERM", 1.0, 1.5)],
)
BROKEN = attrs.evolve(
    FINE,
    name="frozen",
    passed=False,
    figures=[Figure("exit code of producer-1", 1, "= 0", False, quiet=True)],
    problems=["job 5 is lost"],
)


def test_the_page_and_the_plots_are_those_of_the_results() -> None:
    results, machine = report.load()
    assert report.PAGE.read_text("utf-8") == report.page(results, machine)
    assert report.PLOTS.read_text("utf-8") == report.plots(results)


def test_results_were_made_at_length() -> None:
    assert not [result.name for result in report.load()[0] if result.short]


def test_figures_within_limits_that_go_without_saying_are_left_out() -> None:
    assert report.figures_of(FINE) == "longest stop (s) 0.25 (≤ 31); jobs lost 0 (= 0)"
    assert report.figures_of(BROKEN) == "exit code of producer-1 1 (= 0)"


def test_a_line_tells_what_went_wrong() -> None:
    assert report.line(FINE).startswith("passed  sigterm  60 s")
    assert report.line(BROKEN).splitlines()[1:] == ["        job 5 is lost"]
    assert report.line(BROKEN).startswith("FAILED")


def test_results_take_the_place_of_older_ones_in_the_order_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    report.save([FINE, attrs.evolve(BROKEN, passed=True)], "a machine", path)
    report.save([BROKEN], "another", path)
    assert report.load(path) == ([BROKEN, FINE], "another")


def test_a_drill_that_was_not_run_is_told_on_the_page() -> None:
    (line,) = [line for line in report.page([BROKEN], "m").splitlines() if line.startswith("| soak |")]
    assert line.endswith("| - | **not run** at full length yet |")


def test_a_drill_that_failed_is_told_on_the_page() -> None:
    rows = [
        line for line in report.page([BROKEN, FINE], "m").splitlines() if line.startswith(("| frozen |", "| sigterm |"))
    ]
    assert [row.rsplit("|", 2)[1].strip() for row in rows] == ["**failed**: job 5 is lost", "passed"]


def test_there_is_a_panel_for_each_result() -> None:
    root = ElementTree.fromstring(report.plots([BROKEN, FINE]))  # noqa: S314 - made a moment ago
    labels = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [label.split(":")[0] for label in labels] == ["frozen", "sigterm"]
    assert "failed" in labels[0]


@pytest.mark.parametrize("name", list(DRILLS))
def test_names_can_be_typed_and_rows_are_told(name: str) -> None:
    assert name == name.lower()
    assert " " not in name
    assert DRILLS[name].fault
    assert DRILLS[name].passes
    assert "|" not in DRILLS[name].fault + DRILLS[name].passes
