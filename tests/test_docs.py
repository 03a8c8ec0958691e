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
import importlib
import inspect
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
from pathlib import Path
from typing import Any

import attrs
import click
import psycopg
import pytest

import graphile_worker_py
from graphile_worker_py import JobContext, Queue, Task, Tasks, WorkerPool
from graphile_worker_py.cli import main
from graphile_worker_py.cli._options import MEANINGS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
KINDS = ("python", "console", "sql", "text")
DEADLINE = 60.0  # seconds for a page


def names_a_target(target: str) -> None:
    assert re.search(rf"^{target}:.* ## ", (ROOT / "Makefile").read_text("utf-8"), re.M), f"no target {target!r}"


def names_this_project(extras: str | None) -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'name = "graphile-worker-py"' in text
    for extra in (extras or "").split(","):
        assert not extra or re.search(rf"^{extra} = \[", text, re.M), f"no extra {extra!r}"


# Commands that are not run, each with why and with what is checked instead.
NOT_RUN: tuple[tuple[str, str, Callable[..., None]], ...] = (
    (r"make (\w+)", "make demo and make test take minutes, and the second would run this test again", names_a_target),
    (r"pip install '?\.(?:\[(.+)\])?'?", "it would change the environment the tests run in", names_this_project),
    (r"pip install '?graphile-worker-py(?:\[(.+)\])?'?", "the same", names_this_project),
    (r"createdb app", "there is a database already, with a name of this test's", lambda: None),
    (r"export DATABASE_URL=postgresql:///app", "the same; DATABASE_URL is set to it", lambda: None),
)

# Commands that may be missing where the tests run: a stand-in of the same name, as a Python program.
STAND_INS = {
    "psql": "import psycopg; psycopg.connect(sys.argv[1], autocommit=True).execute(sys.stdin.read()); sys.argv[2:] = []"
}


class Wrong(Exception):
    """What is wrong with a page, and where."""


@attrs.frozen
class Block:
    """A fenced block: its text, the line of its first line, and what the page says it prints."""

    kind: str
    text: str
    line: int
    prints: str | None = None


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in order, python blocks with the output that follows them."""
    last: Block | None = None  # a python block that may still be told what it prints
    for block in _fenced(page):
        if block.kind == "text" and last is not None:
            yield attrs.evolve(last, prints=block.text)
            last = None
            continue
        if last is not None:
            yield last
        last = block if block.kind == "python" else None
        if block.kind in ("console", "sql"):
            yield block
    if last is not None:
        yield last


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
    if not lines or not lines[0].startswith("$ "):
        raise Wrong("a console block begins with a command: `$ ...`")
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        prints = "".join(f"{line}\n" for line in lines[start + 1 : end])
        yield Block("command", lines[start][2:], block.line + start, prints)


def same(wanted: str, got: str) -> bool:
    return doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS)


class Screen(io.StringIO):
    """Collects what is printed; where ^C is expected, presses it once everything before it has been seen."""

    def __init__(self, wanted: str | None, press: Callable[[], object]) -> None:
        super().__init__()
        self.pressed = False
        self._lock = threading.Lock()
        self._press = press
        self.interrupts = (wanted or "").endswith("^C\n")
        self.wanted = (wanted or "").removesuffix("^C\n")

    def write(self, text: str) -> int:
        """Take text from whichever thread prints."""
        with self._lock:
            size = super().write(text)
            if self.interrupts and not self.pressed and same(self.wanted, self.getvalue()):
                self.pressed = True
                self._press()
        return size

    def check(self) -> None:
        """Raise Wrong unless all that was expected was printed, and nothing else before ^C."""
        if not self.pressed and (self.interrupts or not same(self.wanted, self.getvalue())):
            raise Wrong(f"expected:\n{self.wanted}printed:\n{self.getvalue()}")


class Page:
    """Runs the blocks of one page in this process, whose folder and environment are the page's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = path.name
        self.screen = Screen(None, lambda: None)
        self.process: subprocess.Popen[str] | None = None
        self.session = types.ModuleType("session")
        sys.modules["session"] = self.session
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
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
            connection.execute(block.text.encode())

    def run_console(self, block: Block) -> None:
        """Run the commands of a block, but for those of NOT_RUN."""
        for command in commands(block):
            self.where = f"{self.path.name}:{command.line}"
            for pattern, _, check in NOT_RUN:
                if found := re.fullmatch(pattern, command.text):
                    check(*found.groups())
                    break
            else:
                self.run_command(command)

    def run_command(self, command: Block) -> None:
        """Run one command; it must print what the page shows, and end with 0."""
        screen = self.screen = Screen(command.prints, lambda: process.send_signal(signal.SIGINT))
        text = f"exec {command.text}" if screen.interrupts else command.text
        process = self.process = subprocess.Popen(
            ["/bin/sh", "-c", text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with process:
            for line in process.stdout or ():
                screen.write(line)
        self.process = None
        screen.check()
        if process.returncode:
            raise Wrong(f"ended with {process.returncode}")

    def give_up(self) -> None:
        """End a page that hangs, and whatever it started."""
        say(f"{self.where}: still running; printed so far:\n{self.screen.getvalue()}")
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        os._exit(1)


def say(text: str) -> None:
    print(text, file=sys.__stdout__, flush=True)


def run_here(path: Path, deadline: float) -> int:
    """Run a page in this process; return 0, or print what is wrong and return 1."""
    page = Page(path)
    watch = threading.Timer(deadline, page.give_up)
    watch.daemon = True
    watch.start()
    try:
        page.run()
    except Wrong as wrong:
        say(str(wrong))
        if wrong.__cause__ is not None:
            traceback.print_exception(wrong.__cause__)
        return 1
    finally:
        watch.cancel()
    return 0


def run_page(page: Path, folder: Path, url: str, deadline: float = DEADLINE) -> None:
    """Run a page in a process of its own; fail with what it says is wrong."""
    tools, room = folder / "tools", folder / "room"
    tools.mkdir()
    room.mkdir()
    for name, text in STAND_INS.items():
        (tools / name).write_text(f"#!{sys.executable}\nimport sys\n{text}\n", "utf-8")
        (tools / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    environment |= {"DATABASE_URL": url, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"}
    environment["PATH"] = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, __file__, str(page), str(deadline)],
        cwd=room,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=deadline + 30,
    )
    if done.returncode:
        pytest.fail(f"{done.stdout}{done.stderr}" or f"ended with {done.returncode}", pytrace=False)
    assert "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_is_what_happens(page: Path, tmp_path: Path, database_url: str) -> None:
    run_page(page, tmp_path, database_url)


def test_every_exception_is_needed() -> None:
    shown = [command.text for page in PAGES for block in blocks(page) if block.kind == "console" for command in commands(block)]
    assert [pattern for pattern, *_ in NOT_RUN if not any(re.fullmatch(pattern, text) for text in shown)] == []


if __name__ == "__main__":
    sys.exit(run_here(Path(sys.argv[1]), float(sys.argv[2])))
