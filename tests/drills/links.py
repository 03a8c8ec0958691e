"""Drills on the way to the database: a cut cable, a half-open socket, a slow and a resetting link, a pooler."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import psycopg
from tcp_proxy import TcpProxy

from drills.catalogue import drill
from drills.fleet import Program
from drills.scene import Scene
from drills.servers import Unavailable, as_account, free_port, from_debian, own_folder

NOTICED = 30.0  # seconds
TROUBLE = re.compile(r"WARNING graphile_worker_py\._(outage|service)|ERROR graphile_worker_py")
NEVER = 600.0  # seconds: stated for what did not come about
TIMEOUTS = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",  # milliseconds; keepalives say nothing while sent data waits to be acknowledged
}


# A host of its own for a worker.


@attrs.frozen
class Cable:
    """A network namespace joined to ours: the address of our end, and what goes before a command to be in it."""

    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return "ip", "netns", "exec", self.name

    def pull(self) -> None:
        """Drop everything from now on; neither side is told."""
        _ip("link", "set", f"{self.name}a", "down")

    def plug(self) -> None:
        _ip("link", "set", f"{self.name}a", "up")


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)  # noqa: S607 - from PATH
    except FileNotFoundError:
        raise Unavailable("needs the program ip") from None
    if done.returncode:
        raise Unavailable(f"needs network namespaces (root on Linux): ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def another_host() -> Iterator[Cable]:
    """Make a namespace and a cable to it; the ledger is reached by its Unix socket, which no cut concerns."""
    name = f"gw{os.getpid() % 100_000}{random.randrange(100):02}"  # noqa: S311 - no secret
    net = f"10.{random.randrange(64, 128)}.{random.randrange(256)}"  # noqa: S311
    _ip("netns", "add", name)
    try:
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _ip("addr", "add", f"{net}.1/24", "dev", f"{name}a")
        _ip("link", "set", f"{name}a", "up")
        for words in (("addr", "add", f"{net}.2/24", "dev", f"{name}b"), ("link", "set", f"{name}b", "up")):
            _ip("-n", name, *words)
        _ip("-n", name, "link", "set", "lo", "up")
        yield Cable(name, f"{net}.1")
    finally:
        _ip("netns", "del", name)


def cut(scene: Scene, seconds: float, *, taken_over: bool) -> None:
    """Pull the cable of one of two workers while it runs jobs, for so long."""
    # A server learns of a cut by its own timeouts; what it still holds for the worker is to be gone at the end.
    scene.server.settings |= {"listen_addresses": "*", **TIMEOUTS}
    options = {"heartbeat": 1.0, "dead_after": 6.0} if scene.short else {}
    with another_host() as cable:
        scene.start(workers=1, **options)
        far = scene.add_worker(database=scene.server.conninfo(host=cable.address), prefix=cable.prefix)
        scene.watch(2)
        held = scene.hold(far, [2_000, (seconds + 15) * 1000 if taken_over else 20])
        scene.sized(far)
        with scene.silent(far), scene.fault("cut", far, repeats=taken_over, charges=taken_over) as fault:
            cable.pull()
            noticed = (
                scene.wait(lambda: TROUBLE.search(far.log()), seconds, "the cut to be noticed")
                if (seconds > NOTICED)
                else 0.0
            )
            scene.watch(fault.began + seconds - time.time())
            cable.plug()
        scene.watch(scene.lasting(35, 25))
        scene.settle(seconds=60)
        state_of_cut(scene, far, held, taken_over=taken_over)
        if noticed:
            scene.at_most("noticed after (s)", noticed, NOTICED)


def state_of_cut(scene: Scene, far: Program, held: list[int], *, taken_over: bool) -> None:
    """State what has to come of a cut."""
    (fault,) = scene.faults
    scene.at_least("rate during, share of the usual", scene.share(fault.began + 1, fault.ended), 0.95)
    again = [a.began - fault.ended for a in scene.record.attempts if a.worker == far.name and a.began > fault.ended]
    scene.at_most("the cut one works again after (s)", min(again, default=NEVER), 35)
    others = {a.n: a.began - fault.began for a in scene.record.attempts if a.worker != far.name and a.n in held}
    scene.exactly("held jobs taken over", len(others), len(held) if taken_over else 0)
    if taken_over:
        scene.at_most("taken over after (s)", max(others.values(), default=NEVER), scene.silence + 25)
        # Not how many late outcomes were told of: one that was sent in vain before may have been written, for all the
        # sender knows. What counts is that those who took over found their rows.
        found = {loss.n for loss in scene.record.losses if loss.worker != far.name}
        scene.exactly("rows that late outcomes changed", len(found & set(held)), 0)


@drill(
    "cut-30",
    "the network of one of two workers cut without a word for 30 s (a host of its own: a network namespace)",
    "the other keeps ≥ 95 %; nobody is taken for dead, nothing done twice; works again ≤ 35 s after",
)
def cut_30(scene: Scene) -> None:
    cut(scene, scene.lasting(30, 4), taken_over=False)


@drill(
    "cut-120",
    "the same for 120 s",
    "noticed ≤ 30 s; the other takes over what it held, ≤ 75 s; its late outcomes change 0 rows",
)
def cut_120(scene: Scene) -> None:
    cut(scene, scene.lasting(120, 40), taken_over=True)


@drill(
    "half-open",
    "the connection that listens goes silent without being closed (proxy)",
    "noticed ≤ 30 s; the rate stays ≥ 95 % meanwhile, by polling",
)
def half_open(scene: Scene) -> None:
    scene.server.start()
    with TcpProxy("127.0.0.1", scene.server.port) as proxy:
        scene.start(queue={"listen": scene.server.conninfo(port=proxy.port)})
        before = proxy.connections
        with scene.fault("half-open") as fault:
            proxy.pause()
            noticed = scene.wait(lambda: proxy.connections >= before + len(scene.workers), 60, "all to notice")
            proxy.resume()
        scene.watch(5)
        scene.settle()
    scene.at_most("noticed by all after (s)", noticed, NOTICED)
    scene.at_least("rate during, share of the usual", scene.share(fault.began, fault.ended), 0.95)


@drill(
    "slow-link",
    "200 ms more for each round trip to the database, 30 s (proxy)",
    "≥ 80 % of the rate offered, which the delay allows",
)
def slow_link(scene: Scene) -> None:
    with proxied(scene) as proxy:
        with scene.fault("slow") as fault:
            proxy.delay(0.1)  # each way
            scene.watch(scene.lasting(30, 10))
        proxy.delay(0)
        scene.watch(5)
        scene.settle()
    scene.at_least("rate during, share of the usual", scene.share(fault.began + 1, fault.ended), 0.8)


@drill(
    "resetting-link",
    "all connections of the workers reset, every 2 s for 30 s (proxy)",
    "≥ 80 % of the rate offered, nothing done twice",
)
def resetting_link(scene: Scene) -> None:
    with proxied(scene) as proxy:
        with scene.fault("resets") as fault:
            until = time.monotonic() + scene.lasting(30, 8)
            while time.monotonic() < until:
                proxy.reset()
                scene.watch(2)
        scene.watch(5)
        scene.settle()
    scene.at_least("rate during, share of the usual", scene.share(fault.began, fault.ended), 0.8)


@contextmanager
def proxied(scene: Scene) -> Iterator[TcpProxy]:
    """Start a fleet whose workers, and only they, reach the database through a proxy."""
    scene.server.start()
    with TcpProxy("127.0.0.1", scene.server.port) as proxy:
        scene.start(workers=0, producers=0, wait=False)
        for _ in range(2):
            scene.add_worker(database=scene.server.conninfo(port=proxy.port))
        scene.add_producer()
        scene.wait_for_the_usual_rate()
        yield proxy


# A pooler.

CONFIGURATION = """[databases]
app = host={socket} port={port} dbname=app
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
pool_mode = transaction
auth_type = trust
auth_file = {users}
default_pool_size = 20
max_client_conn = 100
ignore_startup_parameters = extra_float_digits
"""
PLANNER = "('jit', 'enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'plan_cache_mode', 'search_path', 'role')"
LEFT_BEHIND = f"""select pg_backend_pid(),
    (select count(*) from pg_listening_channels())
    + (select count(*) from pg_prepared_statements)
    + (select count(*) from pg_cursors)
    + (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
    + (select count(*) from pg_settings where source = 'session' and name in {PLANNER})"""  # noqa: S608 - constants


class Pooler:
    """A pgbouncer in transaction mode, from PATH or unpacked from Debian's archive."""

    def __init__(self, scene: Scene) -> None:
        self.port = free_port()
        self._folder = own_folder(scene.folder / "pgbouncer")
        self._program, self._libraries = self._find()
        users = self._folder / "users"
        users.write_text('"app" ""\n')
        self._settings = self._folder / "pgbouncer.ini"
        self._settings.write_text(
            CONFIGURATION.format(socket=scene.server.folder, port=scene.server.port, listen=self.port, users=users)
        )
        self._process: subprocess.Popen[bytes] | None = None

    def _find(self) -> tuple[str, str]:
        if found := shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer"):
            return found, ""
        unpacked = from_debian("pgbouncer", "libc-ares2", "libevent-2.1-7")
        here = self._folder / "unpacked"  # where whoever it runs as can reach it
        shutil.copytree(unpacked, here)
        libraries = {str(path.parent) for path in here.rglob("*.so*")}
        return str(here / "usr/sbin/pgbouncer"), os.pathsep.join(libraries)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, self._settings],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "LD_LIBRARY_PATH": self._libraries},
                **as_account(),
            )

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(10)

    def left_behind(self, conninfo: str) -> tuple[int, int]:
        """Return how many server sessions were looked at, and how much session state was found on them.

        Transactions that are open at a time come by as many sessions, and those of the fleet are among them.
        """
        found: dict[int, int] = {}
        with ExitStack() as stack:
            for _ in range(18):
                connection = stack.enter_context(psycopg.connect(conninfo, prepare_threshold=None))
                row: Any = connection.execute(LEFT_BEHIND).fetchone()
                found[row[0]] = row[1]
        return len(found), sum(found.values())


@drill(
    "pooler",
    "everything through pgbouncer in transaction mode, which is restarted 5 times; only what listens goes past it",
    "nothing lost, nothing done twice; no session state left on the pooler's sessions; ≥ 95 % ≤ 10 s after each",
)
def pooler(scene: Scene) -> None:
    scene.server.start()
    pooler = Pooler(scene)
    with contextlib.ExitStack() as stack:
        stack.callback(pooler.stop)
        pooler.start()
        direct, scene.database = scene.database, scene.server.conninfo(port=pooler.port)
        scene.direct = False
        scene.start(queue={"prepared_statements": False, "listen": direct})
        back = []
        for _ in scene.rounds(5):
            with scene.fault("pgbouncer restarted"):
                pooler.stop()
                scene.watch(0.5)
                pooler.start()
            back.append(time.time())
            scene.watch(8)
        scene.watch(5)
        sessions, state = pooler.left_behind(scene.database)
        scene.settle(then=pooler.stop)  # which keeps its own sessions as long as it lives
        looked = scene.server.execute("select count(*) from pg_locks where locktype = 'advisory'")[0][0]
    scene.state("sessions looked at", sessions)
    scene.exactly("session state left behind", state + looked, 0)
    scene.at_most("longest until 95 % (s)", max(map(scene.recovery, back)), 10)
