"""What users read is run: every block of every page, in order, against a database; and every link is followed.

A page runs from top to bottom in an empty folder of its own, in a process of its own, with DATABASE_URL set to an
empty database. Its blocks are read like this:

    python   typed into one session. One that begins with a comment `# jobs.py` is a file instead: it is saved under
             that name, for commands to use and for later blocks to import.
    console  `$ ` begins a command for sh, the lines below are what it prints. A command ends with 0; a page that
             shows another code prints it: `...; echo "exit code $?"`.
    sql      sent to the database, in autocommit.
    text     what the python block above printed, if only prose stands between the two; else nothing but text.

In what is printed `...` stands for anything, and a last line ^C for the keys: the interrupt is sent once all above
it has appeared. Python that prints must be followed by what it prints. No other kind of block may be used.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from command_line import options_of
from urls import as_url

import graphile_worker_py
from graphile_worker_py import JobContext, Queue, Task, Tasks, WorkerPool
from graphile_worker_py.cli import main
from graphile_worker_py.cli._options import MEANINGS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTED = "".join(page.read_text("utf-8") for page in PAGES)
KINDS = ("python", "console", "sql", "text")
DEADLINE = 60.0  # seconds for a page


def is_a_target(target: str) -> None:
    assert re.search(rf"^{target}:.* ## ", (ROOT / "Makefile").read_text("utf-8"), re.M), f"no target {target!r}"


def is_an_extra(extra: str | None) -> None:
    found = re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert extra is None or found, f"no extra {extra!r}"


def run_sql(text: str) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(text.encode())


# Commands that are not run, each with why, and with what is done instead.
NOT_RUN: tuple[tuple[str, str, Callable[..., object]], ...] = (
    (r"make (\w+)", "make demo and make test take minutes, and the second would run this test again", is_a_target),
    (r"pip install (?:\.|'\.\[(.+)\]')(?: [\w-]+)*", "it would change the environment the tests run in", is_an_extra),
    (r"createdb app", "there is a database already, with a name of this test's", lambda: None),
    (r"export DATABASE_URL=postgresql:///app", "the same; DATABASE_URL is set to it", lambda: None),
    (r'psql "\$DATABASE_URL" < (\S+)', "psql may not be here", lambda name: run_sql(Path(name).read_text("utf-8"))),
)


class Wrong(Exception):
    """What is wrong with a page, and where."""


@attrs.frozen
class Block:
    """A fenced block: its text, the line of its first line, and what the page says it prints."""

    kind: str
    text: str
    line: int
    prints: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in order, python blocks with the output that follows them."""
    for block, after in pairwise([*_fenced(page), Block("end", "", 0)]):
        if block.kind == "python" and after.kind == "text":
            yield attrs.evolve(block, prints=after.text)
        elif block.kind in ("python", "console", "sql"):
            yield block


def _fenced(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks, and each heading as a block of its own kind; refuse code in any other shape."""
    kind, start, held = "", 0, [""]
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        if kind:
            if line == "```":
                yield Block(kind, "".join(held), start)
                kind = ""
            held.append(f"{line}\n")
        elif line.startswith("```"):
            kind, start, held = line[3:], number + 1, []
            if kind not in KINDS:
                raise Wrong(f"{page.name}:{number}: {kind!r} blocks are not run; use one of {', '.join(KINDS)}")
        elif line.lstrip().startswith(("```", "~~~")) or line.startswith(("    ", "\t")):
            raise Wrong(f"{page.name}:{number}: indented code is not run; put it in a block that begins at the margin")
        elif line.startswith("#"):
            yield Block("heading", line, number)
    if kind:
        raise Wrong(f"{page.name}:{start - 1}: this block is never closed")


def commands(block: Block) -> Iterator[Block]:
    """Yield each command of a console block, with what it prints."""
    lines = block.text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    if starts[:1] != [0]:
        raise Wrong("a console block begins with a command: `$ ...`")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        prints = "".join(f"{line}\n" for line in lines[start + 1 : end])
        yield Block("command", lines[start][2:], block.line + start, prints)


class Screen(io.StringIO):
    """Collects what is printed; where ^C is expected, presses it once everything before it has been seen."""

    def __init__(self, wanted: str, press: Callable[[], object]) -> None:
        super().__init__()
        self.interrupts = wanted.endswith("^C\n")
        self._wanted = wanted.removesuffix("^C\n")
        self._press = press
        self._pressed = False
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Take text from whichever thread prints."""
        with self._lock:
            size = super().write(text)
            if self.interrupts and not self._pressed and self._as_wanted():
                self._pressed = True
                self._press()
        return size

    def check(self) -> None:
        """Raise Wrong unless all that was expected was printed, and nothing else before ^C."""
        if not self._pressed and (self.interrupts or not self._as_wanted()):
            raise Wrong(f"expected:\n{self._wanted}printed:\n{self.getvalue()}")

    def _as_wanted(self) -> bool:
        return doctest.OutputChecker().check_output(self._wanted, self.getvalue(), doctest.ELLIPSIS)


class Page:
    """Runs the blocks of one page in this process, whose folder and environment are the page's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = path.name
        self.screen, self.process = Screen("", lambda: None), None
        self.session = sys.modules["session"] = types.ModuleType("session")
        sys.path.insert(0, os.getcwd())

    def run(self) -> None:
        """Run all blocks; raise Wrong with the place for the first that does not do what it says."""
        for block in blocks(self.path):
            self.where = f"{self.path.name}:{block.line}"
            try:
                getattr(self, f"run_{block.kind}")(block)
            except Wrong as wrong:
                raise Wrong(f"{self.where}: {wrong}") from None
            except BaseException as error:
                raise Wrong(f"{self.where}: {type(error).__name__}: {error}") from error

    def run_python(self, block: Block) -> None:
        """Execute a block in the session, or save it as the file that its first line names."""
        if named := re.match(r"# ([\w/]+\.py)\n", block.text):
            Path(named[1]).write_text(block.text, "utf-8")
            return
        self.screen = Screen(block.prints, lambda: os.kill(os.getpid(), signal.SIGINT))
        text = "\n" * (block.line - 1) + block.text
        code = compile(text, str(self.path), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(self.screen):
            exec(code, self.session.__dict__)  # noqa: S102 - the page's own code
        self.screen.check()

    def run_sql(self, block: Block) -> None:
        """Send a block to the database."""
        run_sql(block.text)

    def run_console(self, block: Block) -> None:
        """Run the commands of a block, but for those of NOT_RUN."""
        for command in commands(block):
            self.where = f"{self.path.name}:{command.line}"
            for pattern, _, instead in NOT_RUN:
                if found := re.fullmatch(pattern, command.text):
                    instead(*found.groups())
                    break
            else:
                self.run_command(command)

    def run_command(self, command: Block) -> None:
        """Run one command; it must print what the page shows, and end with 0."""
        screen = self.screen = Screen(command.prints, lambda: process.send_signal(signal.SIGINT))
        text = f"exec {command.text}" if screen.interrupts else command.text
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(["/bin/sh", "-c", text], text=True, start_new_session=True, **pipes)
        self.process = process
        with process:
            for line in process.stdout or ():
                screen.write(line)
        self.process = None
        screen.check()
        if process.returncode:
            raise Wrong(f"ended with {process.returncode}")

    def give_up(self) -> None:
        """End a page that hangs, and whatever it started."""
        print(
            f"{self.where}: still running; printed so far:\n{self.screen.getvalue()}", file=sys.__stdout__, flush=True
        )
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        os._exit(1)


def run_here(path: Path, deadline: float) -> int:
    """Run a page in this process; return 0, or print what is wrong and return 1."""
    page = Page(path)
    watch = threading.Timer(deadline, page.give_up)
    watch.daemon = True
    watch.start()
    try:
        page.run()
    except Wrong as wrong:
        print(wrong)
        if wrong.__cause__ is not None:
            traceback.print_exception(wrong.__cause__)
        return 1
    finally:
        watch.cancel()
    return 0


def run_page(page: Path, room: Path, url: str, deadline: float = DEADLINE) -> None:
    """Run a page in a process of its own; fail with what it says is wrong."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    environment |= {"DATABASE_URL": url and as_url(url), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = (sys.executable, __file__, str(page), str(deadline))
    done = subprocess.run(command, cwd=room, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or "Warning" in done.stderr:
        pytest.fail(f"{done.stdout}{done.stderr}" or f"ended with {done.returncode}", pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_is_what_happens(page: Path, tmp_path: Path, database_url: str) -> None:
    run_page(page, tmp_path, database_url)


def test_every_exception_is_needed() -> None:
    shown = re.findall(r"^\$ (.+)$", DOCUMENTED, re.M)
    assert [pattern for pattern, *_ in NOT_RUN if not any(re.fullmatch(pattern, text) for text in shown)] == []


def fence(kind: str, *lines: str) -> str:
    return "\n".join([f"```{kind}", *lines, "```", ""])


GOOD = (
    "# A page\n\nIt has prose.\n\n",
    fence("python", "# jobs.py", "from graphile_worker_py import Queue", "queue = Queue()", "queue.task('x')(print)"),
    fence("console", "$ graphile-worker-py migrate", "Schema ... applied.", '$ false; echo "exit $?"', "exit 1"),
    fence("sql", "select graphile_worker.add_job('x', '{\"n\": 1}');"),
    fence("python", "from jobs import queue", "queue.run_worker()", "queue.add_job('x', 'two')"),
    "It prints:\n\n" + fence("text", "{'n': 1}", "^C") + fence("text", "a drawing"),
    fence("console", "$ graphile-worker-py run jobs:queue", "... in 8 threads", "two", "^C", "$ make test"),
    fence("python", "assert not queue.jobs()", "queue.close()"),
)

BAD = {
    "raises": (fence("python", "", "1 / 0"), "page.md:2: ZeroDivisionError: division by zero"),
    "prints something else": (fence("python", "print(1)") + "\n\n" + fence("text", "2"), "page.md:2: expected:\n2\n"),
    "does not say what it prints": (fence("python", "print(1)") + "## Next\n" + fence("text", "1"), "printed:\n1\n"),
    "asserts what is not so": (fence("python", "x = 1") + fence("python", "assert x > 1"), "page.md:5: AssertionError"),
    "ends with 3": (fence("console", "$ true", "$ exit 3"), "page.md:3: ended with 3"),
    "is no command": (fence("console", "true"), "page.md:2: a console block begins with a command"),
    "answers something else": (fence("console", "$ echo no", "yes"), "page.md:2: expected:\nyes\nprinted:\nno\n"),
    "ends before ^C": (fence("console", "$ echo yes", "no", "^C"), "page.md:2: expected:\nno\n"),
    "is refused by the database": (fence("sql", "select 1;", "selec 2;"), "page.md:2: SyntaxError"),
    "names no target": (fence("console", "$ make coffee"), "no target 'coffee'"),
    "names no extra": (fence("console", "$ pip install '.[coffee]'"), "no extra 'coffee'"),
    "is of no kind": (fence("", "1 / 0"), "page.md:1: '' blocks are not run"),
    "is indented": ("- Look:\n\n  ```python\n  1 / 0\n  ```\n", "page.md:3: indented code is not run"),
    "is never closed": ("```python\n1\n", "page.md:1: this block is never closed"),
}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def test_a_page_that_is_right_passes(page: Path, tmp_path: Path, database_url: str) -> None:
    page.write_text("".join(GOOD), "utf-8")
    run_page(page, tmp_path, database_url)


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_found(page: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    text, found = BAD[mistake]
    page.write_text(text, "utf-8")
    monkeypatch.chdir(page.parent)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "session", raising=False)
    with pytest.raises(Wrong, match=re.escape(found)):
        Page(page).run()


@pytest.mark.parametrize("kind", ["python", "console"])
def test_a_page_that_hangs_or_breaks_fails(page: Path, tmp_path: Path, kind: str) -> None:
    endless = {"python": fence("python", "import time", "time.sleep(60)"), "console": fence("console", "$ sleep 60")}
    page.write_text(endless[kind], "utf-8")
    with pytest.raises(pytest.fail.Exception, match="still running"):
        run_page(page, tmp_path, "", deadline=2.0)
    page.write_text(fence("console", "$ false"), "utf-8")
    with pytest.raises(pytest.fail.Exception, match="ended with 1"):
        run_page(page, tmp_path, "")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of a page's headings: lower case, hyphens for spaces, no other punctuation."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere; other sites are not visited."""
    broken = []
    for target in re.findall(r"\]\((?!https://)([^)]*)\)", prose(page)):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(f"{page.name}: {target}")
    return broken


def test_every_link_leads_somewhere(page: Path) -> None:
    assert [link for page in [*PAGES, ROOT / "CHANGELOG.md"] for link in broken_links(page)] == []
    page.write_text("# A `b.c` d, e\n[1](#a-bc-d-e) [2](page.md#a-bc-d-e) [3](page.md#b) [4](no.md)\n", "utf-8")
    assert broken_links(page) == ["page.md: page.md#b", "page.md: no.md"]


def test_every_page_is_linked_from_the_readme_and_from_the_index() -> None:
    readme, index = (path.read_text("utf-8") for path in (ROOT / "README.md", ROOT / "docs" / "README.md"))
    names = [page.name for page in PAGES[1:] if page.name != "README.md"]
    assert [name for name in names if f"](docs/{name})" not in readme or f"]({name})" not in index] == []


def test_every_public_name_is_documented() -> None:
    internal = {"bind", "get", "identifiers", "prepare", "database", "left_to_the_row", "wait_for_helpers"}
    internal |= {"limit", "end", "told", "complete_spec", "drop_helpers", "for_handlers", "around_helpers"}  # by us
    names = {name for name in graphile_worker_py.__all__ if not name.startswith("__")}
    for kind in (Queue, WorkerPool, JobContext, Tasks, Task):
        names |= {name for name in vars(kind) if not name.startswith("_")} - internal
    assert {name for name in names if not re.search(rf"\b{name}\b", DOCUMENTED)} == set()


def test_nothing_is_documented_that_does_not_exist() -> None:
    kinds: dict[str, Any] = {"queue": Queue, "ctx": JobContext, "pool": WorkerPool, "tasks": Tasks}
    attributes = {"queue": {"task", "cron", "events", "tasks"}, "ctx": {"job", "queue", "cancelled"}, "pool": {"id"}}
    said = set(re.findall(r"(?<![\w.-])(queue|ctx|pool|tasks)\.(?!md\b|py\b)(\w+)\b", DOCUMENTED))
    assert {f"{a}.{b}" for a, b in said if not hasattr(kinds[a], b) and b not in attributes.get(a, ())} == set()


def test_every_option_and_exit_code_of_the_command_line_is_documented() -> None:
    options = options_of(main)
    assert {option for option in options if option.startswith("-") and option not in DOCUMENTED} == set()
    page = prose(ROOT / "docs" / "running-workers.md")
    assert set(re.findall(r"`(--?\w[\w-]*)`", page)) <= options
    assert re.findall(r"^\| (\d+) \|", page, re.M) == [str(int(code)) for code in MEANINGS]


if __name__ == "__main__":
    sys.exit(run_here(Path(sys.argv[1]), float(sys.argv[2])))
