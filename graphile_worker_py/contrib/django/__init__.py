"""For Django: jobs in the transactions of its ORM, tasks in <app>/tasks.py, `manage.py graphile_worker`.

    INSTALLED_APPS += ["graphile_worker_py.contrib.django"]

    from graphile_worker_py.contrib.django import queue, task

What only some need is imported when it is asked for, and no setting is read by an import: a mistake in them is then
told by Django's checks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from graphile_worker_py.contrib.django.app_queue import AppQueue, queue, task, worker_queue

__all__ = ["AppQueue", "forget_jobs", "queue", "run_jobs", "task", "worker_queue"]

_LATER = {
    "GraphileWorkerBackend": "backend",
    "GraphileWorkerContext": "task_class",
    "GraphileWorkerTask": "task_class",
    "forget_jobs": "testing",
    "run_jobs": "testing",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
