"""The clock of cron: the database's, however wrong this host's is."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from graphile_worker_py import Queue
from graphile_worker_py.cron.scheduler import DatabaseClock


class Host:
    """A database that counts how often it is asked, and clocks of this host that stand still until they are moved."""

    def __init__(self, queue: Queue) -> None:
        self.asked = 0
        self.wall, self.steady = 0.0, 1000.0
        self._database = queue.database
        self.clock = DatabaseClock(self, wall=lambda: self.wall, steady=lambda: self.steady)  # type: ignore[arg-type]

    def run(self, name: str) -> Any:
        self.asked += 1
        return self._database.run(name)


def is_now(moment: datetime) -> bool:
    return abs(moment - datetime.now(timezone.utc)) < timedelta(seconds=30)


def test_between_measurements_it_counts_on(queue: Queue) -> None:
    host = Host(queue)
    first = host.clock.now()
    assert is_now(first)
    assert first.tzinfo is timezone.utc
    host.wall += 100
    host.steady += 100
    assert host.clock.now() - first == timedelta(seconds=100)
    assert host.asked == 1


@pytest.mark.parametrize(("on_wall", "on_steady"), [(240, 240), (30, 0), (-30, 0), (0, 2)])
def test_it_is_measured_again(queue: Queue, on_wall: float, on_steady: float) -> None:
    """After four minutes, after a suspend (in which one clock stands still), and when the time of this host was set."""
    host = Host(queue)
    host.clock.now()
    host.wall += on_wall
    host.steady += on_steady
    assert is_now(host.clock.now())
    assert host.asked == 2


def test_the_zone_of_the_session_does_not_matter(migrated_url: str) -> None:
    """Python adds wall-clock time where a time has a zone."""
    with Queue(f"{migrated_url} options='-c timezone=Europe/Paris'") as queue:
        moment = Host(queue).clock.now()
    assert is_now(moment)
    assert moment.tzinfo is timezone.utc
