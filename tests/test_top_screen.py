"""What `top` draws and what its keys do, without a terminal; the page on it shows the same."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import product

import attrs
import pytest
from test_docs import ROOT
from top_sample import NOW, SAMPLE, drawn

from graphile_worker_py import JobInfo, Progress
from graphile_worker_py._looks import Rates, TaskFigures, Worker
from graphile_worker_py.cli._terminal import keys_of
from graphile_worker_py.cli._top_screen import brief, per_second, short
from graphile_worker_py.cli._top_view import KEYS, MOVES, SIMPLE, Details, Silence, View

EVIL = "\x1b[2J\x9b\u202e\n[red]x"


def test_the_page_shows_what_is_drawn() -> None:
    page = (ROOT / "docs" / "top.md").read_text("utf-8")
    assert "\n".join(drawn()).rstrip("\n") in page, "python tests/top_sample.py prints it"


def test_the_page_names_every_key() -> None:
    page = (ROOT / "docs" / "top.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", page, re.M))
    assert {keys: meaning for keys, meaning in rows.items() if keys in dict(KEYS)} == dict(KEYS)
    named = " ".join(keys for keys, _ in KEYS)
    for key in {*SIMPLE, "enter"} - {"escape", "tab", " ", "?", "h"}:
        assert key in named.lower()


@pytest.mark.parametrize("size", list(product([1, 20, 40, 80, 200], [1, 3, 8, 24, 60])), ids=str)
def test_it_fits_into_any_terminal(size: tuple[int, int]) -> None:
    silence = Silence(NOW, "cannot reach the database: connection refused")
    for view in (View(), View(pane="jobs", cursor=10**9, shows_running=True), View(helps=True), View(job=7)):
        lines = drawn(attrs.evolve(SAMPLE, notes=("no history here",)), view=view, size=size, silence=silence)
        assert len(lines) <= size[1] + 1
        assert max(map(len, lines)) <= size[0]
    if size == (40, 24):
        text = "\n".join(drawn(size=size))
        for seen in ("ready 1,204", "failed 215", "send_em", "web-1", "SMTPServer", "q quit"):
            assert seen in text


def test_what_is_not_exact_says_so() -> None:
    def head(**changes: object) -> str:
        return "\n".join(drawn(attrs.evolve(SAMPLE, **changes), view=View())[:4])

    assert "~" not in head()
    assert "ready 1,204" in head(read=0.25)
    assert "running ~16" in head(read=0.25)
    assert "~ estimated, 25% of the jobs counted" in head(read=0.25)
    assert "ready ~1,204" in head(read=0.25, ready_counted=False)
    assert "counts up to 41.0s old" in head(counts_age=41.0)
    assert "standby  in -  out -" in head(standby=True, rates=Rates(None, None, 0.0))
    assert "no history here: run migrate; no pools" in head(notes=("no history here: run migrate", "no pools"))
    long = "\n".join(drawn(silence=Silence(NOW, "the reason is long " * 20), size=(60, 24)))
    assert long.count("the reason") == 8, "three lines of it"
    assert "no answer since 09:15:07Z: it is gone" in "\n".join(drawn(silence=Silence(NOW, "it is gone"))[:4])


def test_the_text_of_others_is_escaped() -> None:
    task = TaskFigures(EVIL, ready=1)
    worker = Worker(EVIL, EVIL, 1, EVIL)
    failure = attrs.evolve(SAMPLE.errors[0], task=EVIL, error=EVIL)
    job = attrs.evolve(SAMPLE.running[0], task=EVIL, worker=EVIL)
    snapshot = attrs.evolve(SAMPLE, tasks=(task,), workers=(worker,), errors=(failure,), running=(job,), notes=(EVIL,))
    info = JobInfo(
        7,
        EVIL,
        EVIL,
        "running",
        0,
        0,
        1,
        25,
        EVIL,
        0,
        0,
        EVIL,
        0,
        EVIL,
        0,
        [EVIL],  # type: ignore[arg-type]
    )
    details = Details(7, info, Progress(1, 2, EVIL, 1, 0))  # type: ignore[arg-type]
    for view in (View(), View(shows_running=True, task="\x1b"), View(job=7), View(asks="task", typing=EVIL)):
        lines = drawn(snapshot, view=view, size=(200, 40), silence=Silence(NOW, EVIL), details=details)
        assert all(line.isprintable() for line in lines), lines
    assert r"\x1b[2J\x9b\u202e\n[red]x" in "\n".join(drawn(snapshot, view=View(), size=(200, 40)))


def test_figures_are_short() -> None:
    numbers = [0, 9_999, 10_000, 99_949, 999_600, 1_000_000, 4_560_000_000]
    assert [short(number) for number in numbers] == ["0", "9,999", "10k", "99.9k", "1M", "1M", "4.56G"]
    times = [None, 0.0, 0.0084, 0.0123, 0.9996, 59.96, 60, 86_400 * 400.0, -5.0]
    assert [brief(time) for time in times] == ["", "0.0ms", "8.4ms", "12ms", "1.0s", "60.0s", "1m", "400d", "-5.0s"]
    assert [per_second(rate) for rate in (0, 0.001, 0.5, 12.34, 99.96, 5000)] == [
        *("0", "<0.01", "0.5", "12.3", "100", "5,000")
    ]


def test_a_table_is_scrolled_to_the_cursor() -> None:
    tasks = tuple(TaskFigures(f"task{number:02}", ready=100 - number) for number in range(50))
    snapshot = attrs.evolve(SAMPLE, tasks=tasks)
    view = View()
    for _ in range(3):
        view.press("page down", snapshot)
    assert view.cursor == 30
    text = "\n".join(drawn(snapshot, view=view))
    assert "task30" in text
    assert "task00" not in text
    view.press("enter", snapshot)
    assert [task.task for task in view.tasks(snapshot)] == ["task30"]
    view.press("escape", snapshot)
    for key in ("end", "down", "home", "up", "end"):
        view.press(key, snapshot)
    assert view.cursor == 49
    fewer = attrs.evolve(SAMPLE, tasks=tasks[:3])
    assert "task02" in "\n".join(drawn(fewer, view=view)), "the table may become shorter than the cursor is low"
    view.press("enter", fewer)
    assert view.task == ""


def test_all_of_a_job_can_be_scrolled_to_and_back() -> None:
    error = "Error: " + "one long line " * 200 + "ends"
    info = JobInfo(7, "task", None, "failed", 0, 0, 25, 25, error, 0, 0, None, None, None, 0, [])
    view, details = View(job=7), Details(7, info, None)

    def seen() -> str:
        return "\n".join(drawn(view=view, details=details, size=(40, 24)))

    assert "one long line" in seen()
    assert "ends" not in seen()
    view.press("end", SAMPLE)
    assert "ends" in seen()
    assert "one long line" not in seen()
    view.press("page up", SAMPLE)
    assert "one long line" in seen()
    assert "ends" in seen()
    view.press("home", SAMPLE)
    assert "task      task" in seen()


def test_answers_can_be_mistyped() -> None:
    view = View()
    for key in [*"oab0", "enter", *"o1234", "backspace", "clear", *"99", "enter"]:
        view.press(key, SAMPLE)
    assert view.job == 99
    for key in ["escape", *("o" + "9" * 30), "enter"]:
        view.press(key, SAMPLE)
    assert (view.job, view.asks) == (None, None), "no job has such an id"
    for key in ["/", *"qq", "escape", "f5", "ü"]:
        view.press(key, SAMPLE)
    assert (view.task, view.over) == ("", False)
    view.press("q", SAMPLE)
    assert view.over


def test_nothing_to_see_is_no_error() -> None:
    empty = attrs.evolve(SAMPLE, tasks=(), workers=(), running=(), errors=(), oldest_ready=None)
    for pane, running in product(("tasks", "jobs"), (False, True)):
        view = View(pane=pane, shows_running=running)  # type: ignore[arg-type]
        for key in {*MOVES, *SIMPLE, "enter"} - {"o", "/", "?", "h", "p", " "}:
            view.press(key, empty)
            assert "ready 0  oldest -" in "\n".join(drawn(empty, view=view))
    assert any("before" in line for line in drawn(size=(92, 60)))


def test_ages_grow_with_each_order() -> None:
    orders = []
    view = View()
    for _ in range(8):
        orders.append(next(task.task for task in view.tasks(SAMPLE)))
        view.press("s", SAMPLE)
    assert orders == [
        *("resize_image", "resize_image", "send_email", "resize_image"),
        *("import_orders", "resize_image", "import_orders", "import_orders"),
    ]
    assert view.order_name == "ready"
    view.press("r", SAMPLE)
    assert [task.task for task in view.tasks(SAMPLE)][-1] == "resize_image"
    assert "task, by ready up" in "\n".join(drawn(view=view))


def test_keys_are_told_from_what_terminals_send() -> None:
    sent = {
        "aä€": ["a", "ä", "€"],
        "\x1b[A\x1bOB\x1b[6~\x1b[H": ["up", "down", "page down", "home"],
        "\x1b": ["escape"],
        "\x1bo": ["escape", "o"],
        "\x1b\x1b[A": ["escape", "up"],
        "\x1b[1;5C\x1b[<0;3;4Mx": ["x"],  # unknown: passed over whole
        "\r\n\t\x7f\x08\x15\x00\x01": ["enter", "enter", "tab", "backspace", "backspace", "clear"],
        "\x1b[": [],
        "": [],
    }
    assert {text: list(keys_of(text)) for text in sent} == sent


def test_a_worker_that_is_not_heard_is_marked() -> None:
    from graphile_worker_py.cli._top_screen import silent

    worker = SAMPLE.workers[1]
    assert silent(worker)
    assert not silent(attrs.evolve(worker, beat=29.0))
    assert not silent(SAMPLE.workers[2])
    assert timedelta(seconds=worker.beat or 0) < timedelta(minutes=1)
