"""`run` as a service: what it answers over HTTP and tells systemd, from its start to its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from command_line import DEADLINE, Daemon, assert_error, graphile
from plain_sql import eventually

from graphile_worker_py import Health, Queue
from graphile_worker_py.cli._reports import ToSystemd
from graphile_worker_py.cli._systemd import Systemd

Start = Callable[..., Daemon]

SLOW = """
import os
print("importing", flush=True)
open("slow").read()  # a named pipe: until somebody opens its other end
from jobs import queue

@queue.task
def tell(payload):
    print(sorted({"NOTIFY_SOCKET", "WATCHDOG_USEC", "GRAPHILE_WORKER_SUPERVISED"} & set(os.environ)), flush=True)
"""


@pytest.fixture
def slow(folder: Path) -> Path:
    """Write a module slow, whose import waits for the named pipe that is returned."""
    (folder / "slow.py").write_text(SLOW)
    os.mkfifo(folder / "slow")
    return folder / "slow"


def port(folder: Path) -> int:
    """Return the port that a daemon has logged."""
    found: list[str] = []
    eventually(lambda: found.extend(re.findall(r"port (\d+) answers", (folder / "stderr").read_text())) or found)
    return int(found[0])


def get(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=DEADLINE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_from_start_to_end(daemon: Start, folder: Path, queue: Queue, slow: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert_error(graphile("run", "slow:queue", "--health-port", f"127.0.0.1:{number}", cwd=folder), 69, "in use")
    worker = daemon("--health-port", f"127.0.0.1:{number}", target="slow:queue")
    assert worker.next_line() == "importing"
    assert get(number, "live")[0] == 200
    assert get(number, "ready") == (503, '{"ready": false, "reasons": ["starting"], "running": 0}\n')
    slow.write_text("go")
    eventually(lambda: get(number, "ready")[0] == 200)
    assert port(folder) == number
    queue.add_job("wait", str(folder / "gate"))
    assert worker.next_line() == "waiting"
    assert '"running": 1' in get(number, "ready")[1]
    worker.signal(signal.SIGTERM)
    eventually(lambda: get(number, "ready") == (503, '{"ready": false, "reasons": ["stopping"], "running": 1}\n'))
    assert get(number, "live")[0] == 200
    (folder / "gate").write_text("go")
    assert worker.end()[0] == 0


def test_the_parent_answers_for_all(daemon: Start, folder: Path, db: psycopg.Connection, queue: Queue) -> None:
    parent = daemon("--processes", "2", "--health-port", "127.0.0.1:0")
    number = port(folder)
    eventually(lambda: get(number, "ready")[0] == 200)
    queue.add_job("wait", str(folder / "gate"))
    assert parent.next_line() == "waiting"
    eventually(lambda: '"running": 1' in get(number, "ready")[1])
    (folder / "gate").write_text("go")
    living = "select pid from graphile_worker._private_py_pools order by pid"
    victim, _ = (pid for (pid,) in db.execute(living).fetchall())
    os.kill(victim, signal.SIGSTOP)  # neither dead nor alive: it says nothing any more, and nobody may think it well
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: re.search("process [12]: (starting|it has died)", get(number, "ready")[1]))
    assert get(number, "live")[0] == 200
    eventually(lambda: get(number, "ready")[0] == 200)
    parent.signal(signal.SIGTERM)
    assert parent.end()[0] == 0


class FakeSystemd:
    """The socket that systemd listens on."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(DEADLINE)
        self.variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        self.heard: list[str] = []

    def hear(self, line: str) -> None:
        """Wait for a line."""
        while line not in self.heard:
            self.heard += self._socket.recv(4096).decode().splitlines()

    def drain(self) -> None:
        """Read all that is there."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.heard += self._socket.recv(4096).decode().splitlines()
        self._socket.settimeout(DEADLINE)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeSystemd]:
    fake = FakeSystemd(f"@graphile-worker-py-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "s"))
    yield fake
    fake.close()


def test_systemd_is_told(daemon: Start, queue: Queue, slow: Path, systemd: FakeSystemd) -> None:
    worker = daemon(target="slow:queue", **systemd.variables)
    assert worker.next_line() == "importing"
    systemd.hear("STATUS=starting, 0 jobs running")
    systemd.hear("WATCHDOG=1")
    assert "READY=1" not in systemd.heard
    slow.write_text("go")
    systemd.hear("READY=1")
    assert systemd.heard[-2] == "STATUS=working, 0 jobs running"
    queue.add_job("tell")
    assert worker.next_line() == "[]"
    systemd.heard.clear()
    systemd.hear("WATCHDOG=1")
    assert set(systemd.heard) <= {"WATCHDOG=1", "STATUS=working, 1 jobs running", "STATUS=working, 0 jobs running"}
    worker.signal(signal.SIGTERM)
    systemd.hear("STOPPING=1")
    assert worker.end()[0] == 0


def test_a_systemd_that_is_busy_is_told_later(systemd: FakeSystemd) -> None:
    address = systemd.variables["NOTIFY_SOCKET"]
    service = ToSystemd(Systemd(address), lambda: Health(ready=True, reasons=()))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others, suppress(BlockingIOError):
        others.setblocking(False)
        while others.sendto(b"OTHERS=1", address.replace("@", "\0")):
            pass
    service.step()  # there is no room for it
    systemd.drain()
    assert set(systemd.heard) == {"OTHERS=1"}
    service.step()
    systemd.hear("READY=1")
    service.on_stop()


def test_the_parent_tells_systemd_for_all(
    daemon: Start, folder: Path, queue: Queue, db: psycopg.Connection, systemd: FakeSystemd
) -> None:
    (folder / "telling.py").write_text(SLOW.replace('open("slow").read()', ""))
    other = {"WATCHDOG_PID": "1"}  # the watchdog is meant for somebody else
    parent = daemon("--processes", "2", target="telling:queue", **systemd.variables, **other)
    systemd.hear("READY=1")
    assert db.execute("select count(*) from graphile_worker._private_py_pools").fetchone() == (2,)
    queue.add_job("tell")
    assert [parent.next_line() for _ in range(3)] == ["importing", "importing", "[]"]
    parent.signal(signal.SIGTERM)
    systemd.hear("STOPPING=1")
    assert parent.end()[0] == 0
    assert systemd.heard.count("READY=1") == 1
    assert "WATCHDOG=1" not in systemd.heard


@pytest.mark.parametrize(
    ("address", "says"),
    [("/nowhere/at/all", "systemd cannot be told how this service is"), ("vsock:2:1", "is no Unix socket")],
)
def test_a_systemd_that_is_not_there(folder: Path, migrated_url: str, address: str, says: str) -> None:
    more: dict[str, Any] = {"NOTIFY_SOCKET": address}
    done = graphile("run", "jobs:queue", "--once", "--database", migrated_url, cwd=folder, more=more)
    assert done.returncode == 0
    assert done.stderr.count(says) == 1
