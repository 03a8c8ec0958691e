"""Health: whether a pool's threads move, and whether it takes jobs, as whoever manages a fleet wants to know.

An outage of the database is no reason to start a worker anew, which would find it as far away: so it is live, and not
ready. Nor is a statement that waits for its answer; only a thread that makes no move for longer than any statement may
take is stuck, in a subscriber's code for instance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import attrs

from graphile_worker_py._database import Database
from graphile_worker_py._service import Service

STUCK_AFTER = 180.0  # seconds in one step, and never less than four times statement_timeout
HEARD_WITHIN = 30.0  # seconds since the database's last answer, and never less than three heartbeats


@attrs.frozen
class Health:
    """Whether a worker is alive, and whether it takes jobs; `reasons` say why not, `running` counts jobs that run."""

    live: bool = True
    ready: bool = False
    stopping: bool = False
    running: int = 0
    reasons: tuple[str, ...] = ("starting",)


def examine(
    services: Sequence[Service], database: Database, *, heartbeat: float, stopping: bool, running: int
) -> Health:
    """Return the health of a pool with these services; it is starting where there are none."""
    if stopping:
        return Health(stopping=True, running=running, reasons=("stopping",))
    if not services:
        return Health()
    stuck = [_stuck(service, database) for service in services]
    reasons = [reason for reason in stuck if reason]
    live = not reasons
    silence = time.monotonic() - database.heard_at
    if silence > max(HEARD_WITHIN, 3 * heartbeat):
        reasons.append(f"the database was last heard {silence:.0f} s ago")
    return Health(live=live, ready=not reasons, running=running, reasons=tuple(reasons))


def _stuck(service: Service, database: Database) -> str | None:
    longest = math.inf if database.statement_timeout is None else 4 * database.statement_timeout
    if service.has_ended:
        return f"the thread of the {service.name} has ended"
    if service.still_for > max(STUCK_AFTER, longest):
        return f"the {service.name} has not moved for {service.still_for:.0f} s"
    return None
