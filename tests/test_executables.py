"""Executable tasks: what a program is given, what becomes of what it prints, and how it may end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from programs import DUMP, Log, last_error, listening, program, python_program, run_program
from psycopg.conninfo import make_conninfo

from graphile_worker_py import JobSpec, Queue, WorkerPool, _processes, executable_tasks

FAILED = "graphile_worker_py.errors.ExecutableFailed: "
ROOT = Path(__file__).resolve().parent.parent
Pools = Callable[..., WorkerPool]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


@pytest.fixture
def log() -> Iterator[Log]:
    with listening() as log:
        yield log


# What it is given


def test_a_program_gets_the_job_and_nothing_else(
    folder: Path, tmp_path: Path, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(make_conninfo(migrated_url, options="-c timezone=Asia/Kolkata"))
    monkeypatch.setenv("DUMP", str(tmp_path / "dump"))
    monkeypatch.setenv("GRAPHILE_WORKER_JOB_KEY", "of another job")
    python_program(folder, "mail/send.py", DUMP)
    queue.include(executable_tasks(folder))
    number = 12345678901234567890123  # more than a float holds
    run_at = datetime(2020, 1, 2, 3, 4, 5, 678912, tzinfo=timezone(timedelta(hours=2)))
    payload = {"text": "ü\n\u2028'\"", "number": number}
    options = {"job_key": "ключ 1", "max_attempts": 7, "priority": -3}
    for more in (options, {"run_at": run_at}):
        job = queue.add_job("mail/send", payload, **more)
        queue.run_once(1)
        dump = json.loads((tmp_path / "dump").read_text())
        assert json.loads(dump["input"]) == {"payload": payload}
        assert (dump["arguments"], dump["folder"]) == ([], os.getcwd())
        at = (job.run_at if more is options else run_at).astimezone(timezone.utc)
        key = {"GRAPHILE_WORKER_JOB_KEY": "ключ 1"} if more is options else {}
        assert dump["environment"] == key | {
            "GRAPHILE_WORKER_PAYLOAD_FORMAT": "json",
            "GRAPHILE_WORKER_TASK_IDENTIFIER": "mail/send",
            "GRAPHILE_WORKER_JOB_ID": str(job.id),
            "GRAPHILE_WORKER_JOB_ATTEMPTS": "1",
            "GRAPHILE_WORKER_JOB_MAX_ATTEMPTS": "7" if more is options else "25",
            "GRAPHILE_WORKER_JOB_PRIORITY": "-3" if more is options else "0",
            "GRAPHILE_WORKER_JOB_RUN_AT": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z",
        }
    queue.close()


@pytest.mark.parametrize(
    "text",
    [
        "exit 0",
        "exec <&-; sleep 0.1",
        "head -c 10 >/dev/null",
        "head -c 20000 >&2; yes | head -c 1000000; cat > /dev/null",
    ],
    ids=["reads nothing", "closes it", "reads a little", "writes in between"],
)
def test_a_large_payload_blocks_nobody(queue: Queue, folder: Path, text: str) -> None:
    program(folder, "x", text)
    assert run_program(queue, folder, "x" * 5_000_000) is None
    assert not queue.jobs()


def test_a_large_payload_arrives_whole(queue: Queue, folder: Path, log: Log) -> None:
    program(folder, "x", "sleep 0.2; wc -c | tr -d ' '")
    assert run_program(queue, folder, "x" * 5_000_000) is None
    assert log.lines == [("INFO", str(5_000_000 + len('{"payload":""}')))]


# What it prints


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        (r"one\ntwo\n", ["one", "two"]),
        (r"one\n\nlast without end", ["one", "", "last without end"]),
        (r"windows\r\nold\n", ["windows", "old"]),
        (r"\377\376 no \303\251 UTF-8\n\303", ["\\xff\\xfe no é UTF-8", "\\xc3"]),
        ("", []),
    ],
)
def test_each_line_is_logged(queue: Queue, folder: Path, log: Log, printed: str, lines: list[str]) -> None:
    program(folder, "x", f"printf '{printed}'; printf '{printed}' >&2")
    assert run_program(queue, folder) is None
    assert (log.of("INFO"), log.of("ERROR")) == (lines, lines)


def test_a_line_is_logged_when_it_is_written(
    queue: Queue, pools: Pools, folder: Path, tmp_path: Path, log: Log
) -> None:
    """A program that goes on for hours can be followed, even if it never ends a line."""
    os.mkfifo(tmp_path / "gate")
    program(folder, "x", f"echo waiting; yes | tr -d '\\n' | head -c 100000; read go < '{tmp_path}/gate'; echo $go")
    queue.include(executable_tasks(folder))
    queue.add_job("x")
    pool = pools(1)
    log.wait_for("waiting")
    log.wait_for("y" * _processes.LONGEST_LINE)
    (tmp_path / "gate").write_text("on\n")
    pool.stop(30)
    assert "".join(log.of("INFO")) == f"waiting{'y' * 100_000}on"


@pytest.mark.parametrize("wide", [True, False])
def test_ten_megabytes_are_logged_in_pieces_of_bounded_length(queue: Queue, folder: Path, log: Log, wide: bool) -> None:
    line = "'é' * 5_000_000" if wide else "('é' * 49 + '\\n') * 100_000"
    python_program(folder, "x", f"import sys; sys.stdout.buffer.write(({line}).encode())")
    assert run_program(queue, folder) is None
    pieces = log.of("INFO")
    assert "".join(pieces) == "é" * (5_000_000 if wide else 4_900_000)
    assert max(map(len, pieces)) == (_processes.LONGEST_LINE if wide else 49)


# How it ends


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("exit 0", None),
        ("exit 3", "Process exited with code 3"),
        ("exit 255", "Process exited with code 255"),
        ("kill -KILL $$", "Process was killed by SIGKILL"),
        ("kill -TERM $$", "Process was killed by SIGTERM"),
        ("exec >&- 2>&- <&-; sleep 0.2; exit 4", "Process exited with code 4"),
    ],
)
def test_the_exit_code_decides(queue: Queue, folder: Path, text: str, error: str | None) -> None:
    program(folder, "x", text)
    assert run_program(queue, folder) == (error and FAILED + error)


def vanish(path: Path) -> None:
    path.unlink()


def lose_its_bit(path: Path) -> None:
    path.chmod(0o644)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def open_up(path: Path) -> None:
    path.chmod(0o777)


def lose_its_first_line(path: Path) -> None:
    path.write_text("echo no\n")


def lose_its_interpreter(path: Path) -> None:
    path.write_text("#!/no/such/interpreter\n")


def become_garbage(path: Path) -> None:
    path.write_bytes(b"\x7fELF\x00\x01")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (vanish, "ExecutableFailed: {path} is not there any more"),
        (lose_its_bit, "ExecutableFailed: {path} is not an executable file any more: run chmod u+x {path}"),
        (become_a_folder, "ExecutableFailed: {path} is not an executable file any more: run chmod u+x {path}"),
        (open_up, "UnsafeExecutable: other users may write {what}: run chmod go-w {path}"),
        (lose_its_first_line, "ExecutableFailed: {path} cannot be run: it is no program for this machine, {script}"),
        (become_garbage, "ExecutableFailed: {path} cannot be run: it is no program for this machine, {script}"),
        (lose_its_interpreter, "ExecutableFailed: {path} cannot be run: the interpreter that its first line {names}"),
    ],
)
def test_a_file_that_changed_after_the_start(
    queue: Queue, folder: Path, change: Callable[[Path], None], error: str
) -> None:
    path = program(folder, "x", "exit 0")
    queue.include(executable_tasks(folder))
    change(path)
    job = queue.add_job("x")
    queue.run_once(1)
    words = {
        "what": "what would be run as a task, or its folder",
        "script": "and a script begins with a line such as #!/bin/sh",
        "names": "or its header names is not there",
    }
    expected = error.format(path=path, **words)
    assert (last_error(queue, job) or "").split("\n")[0] == f"graphile_worker_py.errors.{expected}"


def test_a_file_that_is_replaced_is_run_as_it_now_is(queue: Queue, folder: Path, log: Log) -> None:
    program(folder, "x", "echo old")
    queue.include(executable_tasks(folder))
    program(folder, "new", "echo new").replace(folder / "x")
    queue.add_job("x")
    queue.run_once(1)
    assert log.lines == [("INFO", "new")]


def test_a_lost_exit_code_is_no_success(queue: Queue, folder: Path) -> None:
    program(folder, "x", "exit 0")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert (run_program(queue, folder) or "").startswith(f"{FAILED}Process ended, but its exit code was lost")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_is_written_just_after_the_end_is_heard(queue: Queue, folder: Path, log: Log) -> None:
    program(folder, "x", "(sleep 0.2; echo late) & echo now")
    assert run_program(queue, folder) is None
    assert log.lines == [("INFO", "now"), ("INFO", "late")]


def test_many_at_a_time_do_not_disturb_each_other(queue: Queue, folder: Path, log: Log) -> None:
    """None inherits the pipes of another: it would keep it waiting for the end of its input."""
    program(folder, "x", "cat > /dev/null; sleep 0.0$(($$ % 10)); echo done; exit $(($$ % 2))")
    queue.include(executable_tasks(folder))
    jobs = queue.add_jobs(JobSpec("x", {"n": number}, max_attempts=1) for number in range(64))
    summary = queue.run_once(16)
    assert summary.completed + summary.failed == len(jobs)
    assert log.lines == [("INFO", "done")] * 64
    errors = {job.last_error for job in queue.jobs()}
    assert errors <= {FAILED + "Process exited with code 1"}
