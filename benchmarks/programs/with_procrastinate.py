"""Procrastinate, to be measured: `URL produce JOBS` or `URL work CONCURRENCY`."""

from __future__ import annotations

import sys

import gate
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector


def app_on(connector: PsycopgConnector | SyncPsycopgConnector) -> App:
    """Return an app with the task noop."""
    app = App(connector=connector)

    @app.task(name="noop")
    async def noop(id: int) -> None:
        pass

    return app


def main(url: str, what: str, count: int) -> None:
    """Produce or work."""
    if what == "work":
        app = app_on(PsycopgConnector(conninfo=url))
        gate.wait()
        app.run_worker(concurrency=count, delete_jobs="always")
        return
    app = app_on(SyncPsycopgConnector(conninfo=url))
    with app.open():
        app.schema_manager.apply_schema()
        for start in range(0, count, 1000):
            app.tasks["noop"].batch_defer(*({"id": number} for number in range(start, min(count, start + 1000))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
