"""A look at a queue that was never there, and what `top` draws of it; `python tests/top_sample.py` prints that.

The page docs/top.md shows it, and tests/test_top_screen.py sees that it is the same.
"""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

from rich.console import Console

from graphile_worker_py._looks import Failure, Rates, RunningJob, Snapshot, TaskFigures, Worker
from graphile_worker_py.cli._top_screen import screen
from graphile_worker_py.cli._top_view import Details, Silence, View

NOW = datetime(2030, 1, 31, 9, 15, 7, tzinfo=timezone.utc)
ERRORS = (
    (3, 81_733, "send_email", 1, False, "SMTPServerDisconnected: Connection unexpectedly closed"),
    (9, 81_702, "send_email", 2, False, "SMTPServerDisconnected: Connection unexpectedly closed"),
    (41, 80_115, "import_orders", 25, True, "KeyError: 'order_id'"),
    (None, 52_077, "resize_image", 25, True, "UnidentifiedImageError: cannot identify image file"),
)

SAMPLE = Snapshot(
    at=NOW,
    standby=False,
    read=1.0,
    counts_age=0.0,
    ready_counted=True,
    oldest_ready=3.21,
    rates=Rates(812.4, 790.2, 10.0),
    history=True,
    tasks=(
        TaskFigures("import_orders", 12, 0, 2, 1, 1, 3.21, 64.0, 0.4, 21.4, 58.7),
        TaskFigures("nightly_report", scheduled=1),
        TaskFigures("resize_image", 840, 0, 8, 0, 214, 1.4, 0.9, 410.3, 0.018, 0.049),
        TaskFigures("send_email", 352, 20, 6, 37, 0, 0.8, 1.2, 379.6, 0.0084, 0.21),
    ),
    workers=(
        Worker("pool-2c1f0a8e7d4b5a6978", "web-1", 4711, "0.1.0", 8, 93_784.0, 2.1, 60.0, 8, 64.0),
        Worker("pool-9a8b7c6d5e4f3a2b1c", "web-2", 812, "0.1.0", 8, 310.0, 41.7, 60.0, 7, 12.0),
        Worker("worker-5f1e", running=1, longest_run=0.9),
    ),
    running=(
        RunningJob(79_201, "import_orders", 1, "pool-2c1f0a8e7d4b5a6978", 64.0),
        RunningJob(81_700, "import_orders", 2, "pool-9a8b7c6d5e4f3a2b1c", 12.0),
    ),
    errors=tuple(Failure(None if ago is None else NOW - timedelta(seconds=ago), *failure) for ago, *failure in ERRORS),
    notes=(),
    cost=0.0031,
)


def drawn(
    snapshot: Snapshot = SAMPLE,
    *,
    view: View | None = None,
    size: tuple[int, int] = (92, 24),
    silence: Silence | None = None,
    details: Details | None = None,
) -> list[str]:
    """Return the lines of the screen."""
    file = io.StringIO()
    console = Console(file=file, width=size[0], height=size[1], color_system=None, markup=False, emoji=False)
    console.print(screen(view or View(), snapshot, size=size, silence=silence, details=details), height=size[1])
    return [line.rstrip() for line in file.getvalue().split("\n")]


if __name__ == "__main__":
    print("\n".join(drawn()).rstrip("\n"))
