"""The app: it finds the tasks of the other apps, and has their queue connected as the settings say."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules

from graphile_worker_py.contrib.django import checks, conf
from graphile_worker_py.contrib.django.app_queue import queue


class GraphileWorkerConfig(AppConfig):
    """The app of a Django project; its label, in permissions and for `migrate`, is graphile_worker."""

    name = conf.APP
    label = "graphile_worker"
    verbose_name = "Graphile Worker"
    default_auto_field = "django.db.models.BigAutoField"  # as the ids of jobs are, whatever the project's are

    def ready(self) -> None:
        """Connect the queue, and import <app>/tasks.py of every app."""
        checks.register()
        setting_changed.connect(_configure_anew, dispatch_uid=conf.APP)
        queue.configure()
        autodiscover_modules("tasks")
        if any(str(params.get("BACKEND")).startswith(conf.APP) for params in getattr(settings, "TASKS", {}).values()):
            import_module(f"{conf.APP}.backend")  # it finds tasks that no module has imported so far


def _configure_anew(*, setting: str, **_: Any) -> None:
    if setting in (conf.SETTING, "DATABASES"):
        queue.configure()
