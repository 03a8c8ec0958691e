"""Executable tasks: how programs are stopped, with all they started, and that nothing of them is left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import psycopg
import pytest
from programs import Log, last_error, listening, program, run_program

from graphile_worker_py import Queue, WorkerPool, _processes, executable_tasks

ROOT = Path(__file__).resolve().parent.parent
Pools = Callable[..., WorkerPool]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


@pytest.fixture
def log() -> Iterator[Log]:
    with listening() as log:
        yield log


def hold(gate: Path) -> Callable[[], None]:
    """Make a named pipe for programs to hold open, and return what waits until none of them is left."""
    os.mkfifo(gate)
    reader = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)

    def all_gone() -> None:
        os.set_blocking(reader, True)
        watch = threading.Timer(30, os._exit, [1])  # a read cannot be given a deadline
        watch.start()
        while os.read(reader, 1000):
            pass
        watch.cancel()
        watch.join()
        os.close(reader)

    return all_gone


STUBBORN = "trap '' TERM; echo started; while :; do sleep 0.05; done"
POLITE = "trap 'echo cleaning; sleep 0.1; echo clean; exit 0' TERM; echo started; while :; do sleep 0.05; done"
# Here the shell ends at once, and a child of it goes on.
STUBBORN_CHILD = "(trap '' TERM; while :; do sleep 0.05; done) & echo started; wait"
POLITE_CHILD = f"({POLITE}) & wait"


@pytest.mark.parametrize(
    ("text", "polite"), [(STUBBORN, False), (POLITE, True), (STUBBORN_CHILD, False), (POLITE_CHILD, True)]
)
@pytest.mark.parametrize("reason", ["time limit", "stop"])
def test_a_stop_ends_the_program_and_all_it_started(
    *,
    queue: Queue,
    pools: Pools,
    folder: Path,
    tmp_path: Path,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    polite: bool,
    reason: str,
) -> None:
    monkeypatch.setattr(_processes, "KILL_AFTER", 30.0 if polite else 0.3)
    all_gone = hold(tmp_path / "held")
    program(folder, "x", f"exec 9> '{tmp_path}/held'; {text}")
    limit = timedelta(seconds=1) if reason == "time limit" else timedelta(hours=1)
    queue.include(executable_tasks(folder, timeout=limit))
    job = queue.add_job("x", "not read" * 100_000)
    pool = pools(1)
    log.wait_for("started")
    if reason == "stop":
        assert [stuck.id for stuck in pool.stop(timeout=0)] == [job.id]
    assert pool.stop(30) == []
    all_gone()
    why = "Process was stopped: it ran for longer than 0:00:01" if limit.seconds == 1 else "with its worker"
    assert (last_error(queue, job) or "").endswith(why)
    lines = ["started", "cleaning", "clean"] if polite else ["started"]
    assert log.of("INFO") == lines


def test_what_a_program_leaves_behind_is_neither_waited_for_nor_ended(
    queue: Queue, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(_processes, "LINGER", 0.1)
    all_gone = hold(tmp_path / "held")
    os.mkfifo(tmp_path / "gate")
    behind = f"trap '' PIPE; read go < '{tmp_path}/gate'; echo late; echo \"$go\" > '{tmp_path}/alive'"
    program(folder, "x", f"exec 9> '{tmp_path}/held'; ({behind}) & printf now; exit 0")
    assert run_program(queue, folder) is None
    (tmp_path / "gate").write_text("yes\n")
    all_gone()
    assert (tmp_path / "alive").read_text() == "yes\n"
    assert log.lines == [("INFO", "now")]


def test_programs_are_dead_before_their_jobs_are_given_back(
    *,
    queue: Queue,
    pools: Pools,
    folder: Path,
    tmp_path: Path,
    log: Log,
    db: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_processes, "KILL_AFTER", 3600.0)
    all_gone = hold(tmp_path / "held")
    program(folder, "x", f"exec 9> '{tmp_path}/held'; {STUBBORN}")
    queue.include(executable_tasks(folder))
    queue.add_job("x")
    pool = pools(1)
    log.wait_for("started")
    running = pool.stop(timeout=0)
    pool.release(running)
    all_gone()
    assert pool.stop(30) == []
    assert db.execute("select locked_by from graphile_worker.jobs").fetchall() == [(None,)]


LEAVES = """
import atexit, logging, os, sys
from graphile_worker_py import Queue, WorkerPool, executable_tasks

class Started(logging.Handler):
    def emit(self, record):
        os.write(ready, b"x")

wait, ready = os.pipe()
queue = Queue(sys.argv[1])
queue.include(executable_tasks(sys.argv[2]))
queue.add_job("x")
logging.getLogger("graphile_worker_py.task").setLevel("INFO")
logging.getLogger("graphile_worker_py.task").addHandler(Started())
WorkerPool(queue, 1).start()
os.read(wait, 1)
child = os.fork()
if not child:
    atexit._run_exitfuncs()
    os._exit(0)
os.waitpid(child, 0)
print("alive" if os.waitpid(-1, os.WNOHANG) == (0, 0) else "dead", flush=True)
"""


def test_programs_end_with_a_worker_that_leaves_but_not_with_a_fork_of_it(
    queue: Queue, folder: Path, tmp_path: Path, migrated_url: str
) -> None:
    all_gone = hold(tmp_path / "held")
    program(folder, "x", f"exec 9> '{tmp_path}/held'; {STUBBORN}")
    command = [sys.executable, "-c", LEAVES, migrated_url, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
    all_gone()


def test_nothing_is_left_open_and_nobody_unburied(
    queue: Queue, folder: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_processes, "KILL_AFTER", 0.0)
    program(folder, "done", "echo $$")
    program(folder, "failed", "echo $$; exit 1")
    program(folder, "killed", f"echo $$; {STUBBORN}")
    program(folder, "closed", "echo $$; exec <&- >&- 2>&-; sleep 0.1")
    (folder / "unstarted").write_text("echo no first line\n")
    (folder / "unstarted").chmod(0o755)
    queue.include(executable_tasks(folder, timeout=timedelta(seconds=0.3)))

    def run_all() -> int:
        for identifier in queue.tasks.identifiers():
            queue.add_job(identifier, max_attempts=1)
        assert sum(attrs.astuple(queue.run_once(1))) == 5
        return len(os.listdir("/dev/fd"))

    before = run_all()
    assert run_all() <= before
    pids = [int(line) for line in log.of("INFO") if line.isdigit()]
    assert len(pids) == 8
    for pid in pids:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
