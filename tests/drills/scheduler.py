"""A scheduler of a drill: `python -m drills.scheduler` follows a crontab on a clock of the drill's own.

What it is to do stands as JSON in the environment variable DRILL: the `database`, the `crontab` as text, and the
clock: it showed `starts` at the `epoch` (seconds), runs `speed` times as fast as ours, and is `wrong` by so many of its
seconds.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from datetime import datetime, timedelta

from graphile_worker_py import Queue
from graphile_worker_py.cron.crontab import parse_crontab
from graphile_worker_py.cron.scheduler import Scheduler

given = json.loads(os.environ["DRILL"])


class FastClock:
    """The drill's clock."""

    def now(self) -> datetime:
        passed = (time.time() - given["epoch"]) * given["speed"]
        return datetime.fromisoformat(given["starts"]) + timedelta(seconds=passed + given["wrong"])


class FastScheduler(Scheduler):
    """A scheduler for whom a minute is over sooner."""

    def step(self) -> float | None:
        left = super().step()
        return None if left is None else left / given["speed"]


def main() -> None:
    """Follow the crontab until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    items = parse_crontab(given["crontab"])
    with Queue(given["database"]) as queue:
        scheduler = FastScheduler(queue, lambda: items, clock=FastClock())
        scheduler.start()
        signal.sigwait([signal.SIGTERM])
        scheduler.stop(timeout=10)


if __name__ == "__main__":
    main()
