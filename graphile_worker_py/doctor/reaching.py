"""The way to the server: a pooler in between, encryption, clocks, and whether notifications come back."""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg

from graphile_worker_py._database import Connection
from graphile_worker_py.doctor.findings import Finding, age, note, ok, problem, warning
from graphile_worker_py.doctor.visit import Visit
from graphile_worker_py.errors import InvalidConninfo

PATIENCE = 5.0  # seconds for a notification
GLANCES = 3  # at the server's clock


def pooler(visit: Visit) -> Iterator[Finding]:
    """Is there a pooler in between, over which nothing can be heard?"""
    if not visit.database.is_pooled(visit.connection):
        yield ok("no pooler stands in between")
    elif visit.database.listen_on is True:
        yield warning(
            "a pooler stands in between: workers hear of no new job, and find it by polling, some two seconds later",
            "give workers the server's own address to listen on (--listen, GRAPHILE_WORKER_LISTEN), or say off",
        )
    else:
        yield ok("a pooler stands in between, and workers know how to do without its notifications")


def notifications(visit: Visit) -> Iterator[Finding]:
    """Is what is added here heard where workers listen?"""
    if visit.settings["standby"] == "true":
        yield ok("not tried: a standby sends no notifications")
        return
    try:
        ear = visit.database.connect_to_listen()
        if ear is None:
            found = ok(f"not tried: {'a pooler is in between' if visit.database.listen_on else 'workers are to poll'}")
        else:
            with closing(ear):
                found = round_trip(visit, ear)
    except (psycopg.Error, InvalidConninfo) as error:
        found = problem(
            f"workers cannot listen where they are to: {masked(error)}",
            "mend the connection string of --listen or GRAPHILE_WORKER_LISTEN, or say off, to poll",
        )
    yield found


def round_trip(visit: Visit, ear: Connection) -> Finding:
    """Send a notification as who adds jobs does, and wait for it where workers listen."""
    channel = f"worker:doctor:{secrets.token_hex(8)}"
    visit.database.listen(ear, channel)
    began = time.monotonic()
    with visit.limited():
        visit.database.ping(visit.connection, channel)
    for _ in ear.notifies(timeout=PATIENCE, stop_after=1):
        return ok(f"a notification arrived after {(time.monotonic() - began) * 1000:.0f} ms")
    return problem(
        f"a notification did not arrive within {PATIENCE:g} seconds where workers listen: they find jobs by polling",
        "let --listen or GRAPHILE_WORKER_LISTEN name this very database of this very server, with no pooler in between",
    )


def tls(visit: Visit) -> Iterator[Finding]:
    """Is a connection that leaves this host encrypted, and to whom?"""
    host = remote_host(visit.connection)
    mode = {option.keyword: option.val for option in visit.connection.pgconn.info}.get(b"sslmode") or b"prefer"
    if host is None:
        yield ok("the connection does not leave this host")
    elif not visit.connection.pgconn.ssl_in_use:
        yield warning(
            f"the connection to {host} is not encrypted: payloads can be read on the way",
            "turn ssl on in the server, and connect with sslmode=verify-full",
        )
    elif not mode.startswith(b"verify-"):
        yield note(
            f"the connection to {host} is encrypted, but sslmode={mode.decode()} does not check who answers",
            "connect with sslmode=verify-full, and sslrootcert of who signed the server's certificate",
        )
    else:
        yield ok(f"the connection to {host} is encrypted, and the server's certificate is checked")


def remote_host(connection: Connection) -> str | None:
    """Return the address at the other end, None for this host: a Unix socket or a loopback address."""
    if connection.info.host.startswith(("/", "@")):
        return None
    address = connection.info.hostaddr
    return None if not address or ipaddress.ip_address(address).is_loopback else address


def clock(visit: Visit) -> Iterator[Finding]:
    """Do this host and the server agree what time it is?"""
    glances = [glance(visit) for _ in range(GLANCES)]
    trip, ahead = min(glances)
    if abs(ahead) - trip / 2 <= visit.thresholds.clock_skew.total_seconds():
        yield ok(f"the clocks agree within {max(abs(ahead), trip / 2):.1g} s")
        return
    direction = "ahead of" if ahead > 0 else "behind"
    yield warning(
        f"the clock of this host is {age(abs(ahead))} {direction} the server's: a run_at that was computed here is "
        "early or late by that, and times in logs do not fit together",
        "set both clocks by the network (chrony, systemd-timesyncd); a run_at that is a timedelta goes by the server's",
    )


def glance(visit: Visit) -> tuple[float, float]:
    """Return for how long a look at the server's clock takes, and by how much this host's is ahead."""
    before, started = time.time(), time.monotonic()
    ((there,),) = visit.look("doctor_clock")
    trip = time.monotonic() - started
    return trip, before + trip / 2 - there


def masked(error: Exception) -> str:
    """Return an error's first line; what stands before an @ may be a part of a password."""
    return re.sub(r"[^\s'\"]+@", "...@", str(error).strip().split("\n", 1)[0])
