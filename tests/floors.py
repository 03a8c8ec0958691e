"""The floors of the package, which tests/test_house.py holds it to."""

from __future__ import annotations

from pathlib import Path

_DJANGO = Path(__file__).resolve().parent.parent / "graphile_worker_py" / "contrib" / "django"
_DJANGO_MIGRATIONS = tuple(f"contrib.django.migrations.{path.stem}" for path in _DJANGO.glob("migrations/0*.py"))

# From the roof down. A module imports only from floors below its own; "" is the package itself (its __init__.py).
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__", "contrib.django", "contrib.flask", "contrib.flask.current"),
    ("contrib.flask.extension",),
    ("contrib.flask.command_line", "contrib.flask.settings"),
    (
        *("contrib.django.admin", "contrib.django.apps", "contrib.django.backend", "contrib.django.migrations"),
        *_DJANGO_MIGRATIONS,
    ),
    (
        *("contrib.django.admin_actions", "contrib.django.checks", "contrib.django.daemon"),
        *("contrib.django.installing", "contrib.django.task_paths", "contrib.django.testing"),
        "contrib.django.management.commands.graphile_worker",
    ),
    ("contrib.django.task_runs",),
    ("contrib.django.task_class", "contrib.django.task_records"),
    ("contrib.django.app_queue", "contrib.django.models", "contrib.django.task_options"),
    (
        *("contrib.django.conf", "contrib.django.connection_care", "contrib.django.reloading"),
        "contrib.django.tasks_framework",
    ),
    ("contrib", "contrib.django.management", "contrib.django.management.commands"),
    ("cli", "testing"),
    ("cli.add_many", "cli.jobs", "cli.unlock"),
    ("cli.add", "cli.crontab", "cli.demo", "cli.history", "cli.migrate", "cli.progress", "cli.run"),
    ("cli.cleanup", "cli.doctor", "cli.queues", "cli.roles", "cli.stats", "cli.tasks", "cli.workers"),
    ("cli._choosing", "cli.top"),
    ("cli._terminal", "cli._top_looker", "cli._top_screen"),
    ("cli._top_view",),
    ("cli._reload", "cli._supervisor", "cli._output"),
    ("cli._children", "cli._reports", "cli._run_options"),
    ("cli._configuration", "cli._health_server", "cli._target"),
    ("cli._logs", "cli._options", "cli._parent", "cli._systemd"),
    ("",),
    ("worker.pool",),
    ("worker", "quick"),
    ("worker.crew", "worker.inline", "worker.health", "worker.listener", "worker.oversight", "cron.scheduler"),
    ("worker.local_queue", "worker.completer", "worker.executor"),
    ("worker.limited_claims",),
    ("worker.cancellations", "worker.claims", "worker.context", "worker.deadlines", "worker.gates", "worker.progress"),
    ("worker.heartbeat", "worker.pace", "worker.signals", "worker.recorder", "worker.watch"),
    ("doctor",),
    ("doctor.reaching", "doctor.schema", "doctor.vacuum", "doctor.work"),
    ("doctor.server",),
    ("doctor.visit",),
    ("doctor.findings",),
    ("queue",),
    ("cron.known",),
    ("migrate", "roles", "cron.schedule", "_cleaning", "_together"),
    ("_administration", "listing"),
    ("_adding", "_one_connection", "_running", "_scanning", "executables", "history", "results"),
    ("monitor",),
    ("_database", "_service", "tasks", "events", "embedded"),
    ("cron.crontab", "current"),
    ("cron.pattern",),
    ("cron", "_connections", "_grip", "_own_connection", "limits", "retry", "signatures"),
    ("_awaited", "_looks", "_psycopg2"),
    ("_walk",),
    ("jobs", "_conninfo", "_embedded_guard", "_explained", "_outage", "_statements", "_watched"),
    ("checks",),
    ("_payload", "_payload_differences", "_processes", "_typed", "_handlers"),
    ("errors", "_version"),
)

# (who, whom): why this one import may go up.
UPWARD = {
    ("queue", "worker.pool"): "run_worker and run_once are offered on the façade; imported inside them, when called",
}
