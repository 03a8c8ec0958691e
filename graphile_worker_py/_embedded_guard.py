"""The guard: a small process that keeps one embedded PostgreSQL and outlives whoever asked for it.

Run as a script by `embedded.EmbeddedPostgres`, never imported: it has to start fast and without site-packages
(`python -I -S`), so it imports the standard library only, and nothing of this package.

Everything that could be left behind (directories, initdb, the server) is made here and undone here. The caller may
be killed at any instant, the guard then reads the end of its standard input and clears up; there is no moment at which
something exists that only the caller knows of. The guard in turn ignores the signals a terminal or a supervisor
sends to a whole group, so that it stops after its caller and not before. Should the guard itself be killed, Linux
stops the server (see `_stop_with_guard`), and only a directory under the temporary folder remains.

The conversation: one line of JSON in (the request), one line of JSON out (`socket` and `version`, or `error`), then
any byte or the end of the input means stop.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, NamedTuple

PORT = "5432"  # only a part of the socket's file name: each server has a directory of its own
LONGEST_SOCKET = 100  # bytes: sun_path holds 108 on Linux, 104 on macOS, with the final zero
POLL = 0.01  # seconds between looks while starting: neither initdb nor the server tells us in another way
PATIENCE = 20.0  # seconds for what should take one: a predecessor's exit, initdb's end, each step of a stop

ALWAYS = {
    "listen_addresses": "",
    # /dev/shm would keep segments after a SIGKILL and is tiny in containers; files in the data go with the data.
    "dynamic_shared_memory_type": "mmap",
}
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
INITDB = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"),
    # PostgreSQL's own C.UTF-8 is there on every machine and sorts alike on all; the system's may be absent (macOS).
    *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    "--no-clean",  # the folder goes anyway, and postmaster.pid is read for the shared memory of a crash
)


class Abandoned(Exception):
    """The caller is gone, or wants no server any more."""


class Failed(Exception):
    """There will be no server; the message says why."""


class Account(NamedTuple):
    """Whom PostgreSQL runs as when we are root."""

    uid: int
    gid: int
    name: str


class Caller:
    """The process that asked, seen through the pipe on standard input and its process id."""

    def __init__(self, process_id: int) -> None:
        self._process_id = process_id

    def gone(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a sign that it is over."""
        # The pipe alone is not enough: a fork of the caller holds its write end open for as long as it lives.
        readable, _, _ = select.select([0], [], [], timeout)
        return bool(readable) or os.getppid() != self._process_id

    def tell(self, **report: str) -> None:
        """Send the one line, then let go of standard output and error, which the caller may share with others."""
        with contextlib.suppress(OSError):  # nobody is there to read it: found out by the next gone()
            os.write(1, json.dumps(report).encode() + b"\n")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)


class Server:
    """One PostgreSQL, from nothing to `ready`; `undo` takes each thing back, the last one first."""

    def __init__(self, request: dict[str, Any], caller: Caller, undo: contextlib.ExitStack) -> None:
        self._caller = caller
        self._undo = undo
        self._deadline = time.monotonic() + request["patience"]
        self._settings: dict[str, str] = request["settings"]
        self._directory = Path(request["directory"]) if request["directory"] else None
        self._account = choose_account(self._directory)
        self._run = self._make_run_directory(request["temporary"])
        self._log = self._open_log()
        self._bin, self.version = self._find_programs(Path(request["programs"]))
        self._hand_over(self._run)  # last, so that no process of that user can meddle with what we put there as root

    @property
    def socket(self) -> str:
        """The directory that holds the socket."""
        return str(self._run)

    def start(self) -> subprocess.Popen[bytes]:
        """Make the data directory if there is none, start the server and wait until it takes connections."""
        data = self._run / "data" if self._directory is None else self._claim(self._directory) / "data"
        if not (data / "PG_VERSION").exists():
            self._initialise(data)
        settings = ALWAYS | (THROW_AWAY if self._directory is None else {}) | self._settings
        settings |= {"port": PORT, "unix_socket_directories": '"' + self.socket.replace('"', '""') + '"'}
        arguments = [item for name, value in settings.items() for item in ("-c", f"{name}={value}")]
        postmaster = self._launch("postgres", "-D", str(data), *arguments)
        self._undo.callback(self._stop, postmaster, data)
        while not is_ready(data, postmaster.pid):
            if postmaster.poll() is not None:
                raise self._failure(f"PostgreSQL did not start (exit code {postmaster.returncode})")
            self._pause()
        return postmaster

    def _pause(self) -> None:
        if self._caller.gone(POLL):
            raise Abandoned
        if time.monotonic() > self._deadline:
            raise self._failure("PostgreSQL did not start in time")

    def _make_run_directory(self, temporary: str) -> Path:
        """Make the directory (mode 0700) of the socket and the log, and of the data if they are to be thrown away."""
        probe = Path(temporary, "gw-pg-________", f".s.PGSQL.{PORT}")
        unfit = len(os.fsencode(probe)) > LONGEST_SOCKET or "," in temporary  # libpq takes a comma for two hosts
        if unfit or not is_reachable(Path(temporary), self._account):
            temporary = "/tmp"  # noqa: S108 - mkdtemp makes the name
        run = Path(tempfile.mkdtemp(prefix="gw-pg-", dir=temporary))
        self._undo.callback(remove, run)
        return run

    def _open_log(self) -> IO[bytes]:
        return self._undo.enter_context((self._run / "log").open("ab"))

    def _failure(self, what: str) -> Failed:
        text = (self._run / "log").read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.strip() and "at user's request" not in line][-6:]
        if not lines:  # as when the disk is full, and the log with it
            free = shutil.disk_usage(self._run).free // 2**20
            lines = [f"no message, and {free} MiB are free in {self._run.parent}"]
        return Failed("\n".join([f"{what}:", *lines]))

    def _find_programs(self, installed: Path) -> tuple[Path, str]:
        """Return the folder of initdb and postgres and their version; a copy of it if their user cannot read it.

        A virtualenv below /root (mode 0700) is such a case. The copy (22 MB) lives and goes with this run: a cache
        would save a tenth of a second (one on a slow disk), and leave a folder for ever where others may write.
        """
        version, complaint = self._ask_version(installed)
        if complaint and self._account:
            installed = self._copy_programs(installed)
            version, complaint = self._ask_version(installed)
        if complaint:
            raise Failed(f"the PostgreSQL programs do not run here: {complaint}")
        return installed / "bin", version

    def _ask_version(self, installed: Path) -> tuple[str, str]:
        """Return the version or the complaint of initdb, which needs more libraries than the server."""
        command: list[str | Path] = [installed / "bin/initdb", "--version"]
        try:
            tried = subprocess.run(  # noqa: S603 - a program of the package we depend on
                command, check=False, capture_output=True, text=True, **self._as_account()
            )
        except OSError as error:
            return "", str(error)
        return ("", tried.stderr.strip() or "no message") if tried.returncode else (tried.stdout.split()[2], "")

    def _copy_programs(self, installed: Path) -> Path:
        package = installed.parent
        # The programs find their libraries by a relative path, so the copy has to keep the layout of site-packages.
        libraries = [package / ".dylibs", package.with_name(f"{package.name}.libs")]
        for folder in [installed, *filter(Path.is_dir, libraries)]:
            target = self._run / "site" / folder.relative_to(package.parent)
            shutil.copytree(folder, target, ignore=leave_out)
        for path in [*(self._run / "site").rglob("*"), self._run / "site", self._run]:
            self._hand_over(path)
        return self._run / "site" / installed.relative_to(package.parent)

    def _hand_over(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.uid, self._account.gid, follow_symlinks=False)

    def _claim(self, directory: Path) -> Path:
        """Make the directory, and keep others that follow this protocol out of it while we live."""
        directory.mkdir(parents=True, exist_ok=True)
        if not any(directory.iterdir()):
            self._hand_over(directory)
        if not is_reachable(directory, self._account):
            name = f"{self._account.name}, whom it runs as instead of root" if self._account else "this user"
            raise Failed(f"PostgreSQL cannot use {directory}: it is closed to {name}")
        # Whoever the server runs as owns the directory: no link of theirs may lead root elsewhere.
        lock = os.open(directory / "lock", os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        self._undo.callback(os.close, lock)
        # The server of a caller that was just killed may be on its way out.
        patience = min(time.monotonic() + PATIENCE, self._deadline)
        while not try_lock(lock):
            if time.monotonic() > patience:
                raise Failed(f"{directory} is in use by another embedded PostgreSQL")
            if self._caller.gone(POLL):
                raise Abandoned
        return directory

    def _initialise(self, data: Path) -> None:
        """Run initdb beside the final place and rename, so that a data directory is complete or not there."""
        fresh = data.with_name("data.new")
        remove(fresh)
        fresh.mkdir(mode=0o700)
        self._hand_over(fresh)
        sync = ["--no-sync"] if self._directory is None else []
        initdb = self._launch("initdb", "--pgdata", str(fresh), *INITDB, *sync)
        with contextlib.ExitStack() as unfinished:
            unfinished.callback(remove, fresh)
            unfinished.callback(free_shared_memory, fresh)
            # Not killed at once: its children would leave shared memory, and it takes under a second.
            unfinished.callback(end, initdb, [signal.SIGKILL], first=PATIENCE)
            while initdb.poll() is None:
                self._pause()
            if initdb.returncode != 0:
                raise self._failure(f"initdb failed (exit code {initdb.returncode})")
            unfinished.pop_all()
        fresh.rename(data)
        self._log.truncate(0)  # initdb's progress would only be in the way of what the server says

    def _launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - as above, and no shell reads the settings
            [self._bin / program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_stop_with_guard if program == "postgres" else None,  # noqa: PLW1509 - we have one thread
            **self._as_account(),
        )

    def _as_account(self) -> dict[str, Any]:
        # The current folder may be closed to the other user; PG* may name another port or data; macOS wants LC_ALL.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        options: dict[str, Any] = {"cwd": "/", "env": inherited | {"LC_ALL": "C"}}
        if self._account:
            options |= {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}
        return options

    def _stop(self, postmaster: subprocess.Popen[bytes], data: Path) -> None:
        if self._directory is not None:  # disconnect and write all data; a second and third try only if it hangs
            end(postmaster, [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
            return
        end(postmaster, [signal.SIGQUIT, signal.SIGKILL])  # nobody will read the data again: do not write them
        free_shared_memory(data)


def choose_account(directory: Path | None) -> Account | None:
    """Return None for ourselves; for root, which PostgreSQL refuses, the owner of existing data, or nobody."""
    if os.geteuid() != 0:
        return None
    data = directory / "data" if directory else None
    if data and data.exists() and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid, f"user {data.stat().st_uid}")
    for name in ("nobody", "daemon", "bin"):  # initdb insists on an entry in the password file: no free number will do
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid, f"user {name}")
    raise Failed("PostgreSQL refuses to run as root, and this machine has no user nobody to run it as")


def is_reachable(directory: Path, account: Account | None) -> bool:
    """Say whether that user may enter the directory, and every one above it."""
    if account is None:
        return os.access(directory, os.W_OK | os.X_OK)
    for path in (directory.resolve(), *directory.resolve().parents):
        status = path.stat()
        if not status.st_mode & (0o100 if status.st_uid == account.uid else 0o001):
            return False
    return True


def leave_out(folder: str, names: list[str]) -> list[str]:
    """Name what a server does not need of an installation: other programs, headers, static libraries."""
    if Path(folder).name == "bin":
        return [name for name in names if name not in {"initdb", "postgres"}]
    return [name for name in names if name in {"include", "pkgconfig", "pgxs"} or name.endswith(".a")]


def try_lock(file: int) -> bool:
    """Take the lock on an open file unless another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_pid_file(data: Path) -> list[str]:
    """Return the lines of postmaster.pid, of which the first is the process id, the 7th the shared memory's."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def is_ready(data: Path, process_id: int) -> bool:
    """Say whether this very server takes connections; a file that an earlier one left does not count."""
    lines = read_pid_file(data)
    return lines[:1] == [str(process_id)] and [line.strip() for line in lines[7:]] == ["ready"]


def free_shared_memory(data: Path) -> None:
    """Free the 56 bytes of System V memory that a crash leaves in the kernel, else until the machine restarts.

    Only for data that are given up: for others this memory is what keeps a second server away from them.
    """
    for line in read_pid_file(data)[6:7]:
        ctypes.CDLL(None).shmctl(int(line.split()[1]), 0, None)  # 0 is IPC_RMID


def end(process: subprocess.Popen[bytes], signals: list[signal.Signals], first: float = 0) -> None:
    """Wait `first` seconds for the process, then send one signal after the other until it is gone."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(first)
    for number in signals:
        if process.poll() is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)  # or a suspended one would not hear it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)


def remove(folder: Path) -> None:
    """Remove a folder; again while a process that was just killed still puts files there."""
    until = time.monotonic() + PATIENCE
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < until:
        time.sleep(POLL)
        shutil.rmtree(folder, ignore_errors=True)


def _stop_with_guard() -> None:
    """Ask Linux, in the new process, to stop the server should the guard be killed. Elsewhere: not possible."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # 1 is PR_SET_PDEATHSIG; SIGINT is PostgreSQL's fast shutdown


def take_no_signals() -> None:
    """Outlive what is sent to all processes of a terminal or a service: the caller's end decides."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)  # and not SIG_IGN, which initdb would inherit
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller that ignores it would hide exit codes from us and initdb


def serve(request: dict[str, Any], caller: Caller) -> None:
    """Keep a server until the caller is gone or the server itself is; take everything back whatever happens."""
    with contextlib.ExitStack() as undo:
        server = Server(request, caller, undo)
        postmaster = server.start()
        caller.tell(socket=server.socket, version=server.version)
        while not caller.gone(1.0) and postmaster.poll() is None:
            pass


def main() -> None:
    """Read the request, serve it, and say what went wrong once nothing is left of it."""
    take_no_signals()
    with open(0, "rb", buffering=0, closefd=False) as requests:  # unbuffered: what follows is for select to see
        line = requests.readline()
    if not line.endswith(b"\n"):
        return  # the caller died before it had asked
    request = json.loads(line)
    caller = Caller(request["caller"])
    try:
        serve(request, caller)
    except Abandoned:
        pass
    except (Failed, OSError) as error:
        caller.tell(error=str(error))


if __name__ == "__main__":
    main()
