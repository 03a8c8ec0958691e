"""Drills in which a standby takes over, and the old primary is fenced off."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.conninfo import make_conninfo

from drills import invariants
from drills.catalogue import drill
from drills.scene import Scene
from drills.servers import Server

BACK = 10.0  # seconds


@contextmanager
def with_standby(scene: Scene, *, synchronous: bool) -> Iterator[Server]:
    """Start the primary and a standby of it, and point the fleet at whichever of them takes writes."""
    primary = scene.server
    primary.start()
    standby = Server(scene.folder / "standby")
    standby.copy_running(primary)
    standby.start()
    try:
        if synchronous:
            primary.execute("alter system set synchronous_standby_names = '*'")
            primary.execute("select pg_reload_conf()")
        state = "select count(*) from pg_stat_replication where sync_state = %s"
        wanted = "sync" if synchronous else "async"
        scene.wait(lambda: primary.execute(state, [wanted])[0][0], 20, "the standby")
        scene.database = make_conninfo(
            "",
            host="127.0.0.1,127.0.0.1",
            port=f"{primary.port},{standby.port}",
            user="app",
            dbname="app",
            target_session_attrs="read-write",
        )
        yield standby
    finally:
        for server in (standby, primary):
            server.stop(signal.SIGQUIT)


def fail_over(scene: Scene, standby: Server) -> float:
    """Fence the primary, promote the standby, look at it from now on; return when it took writes."""
    scene.server.stop(signal.SIGQUIT)
    standby.execute("alter system set synchronous_standby_names = ''")
    standby.promote()
    scene.server = standby
    return time.time()


@drill(
    "failover",
    "the primary of a synchronous standby fenced, the standby promoted",
    "nothing lost; on the new primary at 95 % ≤ 10 s after it takes writes",
)
def synchronous(scene: Scene) -> None:
    with with_standby(scene, synchronous=True) as standby:
        scene.start()
        with scene.fault("failover"):
            promoted = fail_over(scene, standby)
        scene.watch(15)
        scene.settle()
        scene.at_most("until 95 % (s)", scene.recovery(promoted), BACK)


@drill(
    "failover-async",
    "the same with an asynchronous standby that lags behind by 2 s",
    "lost: what was committed within the lag, and nothing else; on the new primary at 95 % ≤ 10 s",
)
def asynchronous(scene: Scene) -> None:
    with with_standby(scene, synchronous=False) as standby:
        scene.start()
        receiver = standby.execute("select pid from pg_stat_wal_receiver")[0][0]
        with scene.fault("lag, then failover", repeats=True, loses=True) as fault:
            os.kill(receiver, signal.SIGSTOP)
            scene.watch(2)
            scene.server.stop(signal.SIGQUIT)
            fault.ended = lag_ended = time.time()
            os.kill(receiver, signal.SIGKILL)  # as if the link had never come back
            scene.wait(lambda: not standby.execute("select from pg_stat_wal_receiver"), 10, "the lag to be final")
            promoted = fail_over(scene, standby)
        fault.ended = lag_ended
        scene.watch(15)
        scene.settle()
        scene.at_most("until 95 % (s)", scene.recovery(promoted), BACK)
        scene.at_least("jobs lost with the lag", len(invariants.missing(scene.record)), 1)
