"""libfaketime, which lies to a process about the time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from drills.fleet import Program
from drills.servers import MEMORY, from_debian


def libfaketime() -> Path:
    """Return the library to preload, the system's or unpacked from Debian's archive."""
    for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        return path
    (path,) = from_debian("libfaketime").rglob("libfaketime.so.1")
    return path


def clean_up_after(programs: Iterable[Program]) -> None:
    """Remove what libfaketime leaves in memory where its process is killed."""
    for program in programs:
        for name in ("faketime_shm", "sem.faketime_sem"):
            (MEMORY / f"{name}_{program.pid}").unlink(missing_ok=True)
