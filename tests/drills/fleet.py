"""The processes of a drill, and what can be seen and measured of them from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

TESTS = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
UNFINISHED = 75  # the exit code of a worker that leaves handlers behind, as documented
THREADS = 8  # of a worker
PATIENCE = 30.0  # seconds for a process to end


@attrs.frozen
class Size:
    """What a process holds: threads, open files (sockets among them), resident bytes."""

    threads: int
    files: int
    memory: int


class Program:
    """A process whose output goes to a file; `given` is for the environment variable DRILL."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        given: Mapping[str, object],
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: str = sys.executable,
    ) -> None:
        self.name = name
        self.started_at = time.time()
        self.ended_at: float | None = None
        self.log_file = folder / f"{name}.log"
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if key in os.environ}
        variables = {
            **kept,
            "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
            "DRILL": json.dumps({"name": name, **given}),
            **(environment or {}),
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=variables,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as kill -9 does, and wait until it has ended."""
        self.process.kill()
        self.wait()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end and return the exit code; raises subprocess.TimeoutExpired."""
        code = self.process.wait(timeout)
        self.ended_at = self.ended_at or time.time()
        return code

    def stop(self, timeout: float = PATIENCE) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        if self.is_running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def size(self) -> Size:
        proc = Path("/proc", str(self.pid))
        pages = int((proc / "statm").read_text().split()[1])
        threads, files = (len(os.listdir(proc / name)) for name in ("task", "fd"))
        return Size(threads, files, pages * os.sysconf("SC_PAGE_SIZE"))

    def cpu(self) -> float:
        """Return the seconds of a processor that it has used."""
        fields = Path("/proc", str(self.pid), "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def log(self) -> str:
        """Return all that it has printed and logged."""
        return self.log_file.read_text("utf-8", errors="replace")
