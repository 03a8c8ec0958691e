"""A worker that starts anew when the code of the project changes, for development: runserver's idea, stopping as ours.

Django's reloader exits in one thread and lets the others be torn away, which is right for a server without state. Here
the worker is a child process that is told to stop as by SIGTERM, so that what runs is finished, or given back, before
the next one begins. The parent watches, and waits for the next change where the code cannot be imported.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from django.apps import apps
from django.utils import autoreload

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_with_reloader(work: Callable[[], object]) -> None:
    """In the child, call `work`; in the parent, keep a child running until told to stop, and exit as the last did."""
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true":
        work()
    else:
        sys.exit(_Reloader().keep_running())


class _Reloader(autoreload.StatReloader):
    """Watches the modules this process has imported, and the folders of the project's own apps."""

    def __init__(self) -> None:
        super().__init__()
        installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")}
        for app in apps.get_app_configs():
            if installed.isdisjoint(Path(app.path).parents):
                self.watch_dir(app.path, "**/*.py")
        self._changed = False
        self._told = False
        self._said = False
        self._child: subprocess.Popen[bytes] | None = None

    def keep_running(self) -> int:
        """Return what the last child ended with, once it has ended as it was told, or by itself with 0."""
        for number in SIGNALS:
            signal.signal(number, self._pass_on)
        self._start()
        for _ in self.tick():  # once a second
            code = self._ended_with()
            if code is None:
                continue
            if self._changed and not self._told:
                self._start()
            elif self._told or code == 0:
                return max(code, 0)
        return 0

    def notify_file_changed(self, path: Path) -> None:
        """Have the worker stop, if it runs; it is then started anew."""
        autoreload.logger.info("%s changed, starting the worker anew.", path)
        self._changed = True
        self._signal(signal.SIGTERM)

    def _ended_with(self) -> int | None:
        """Return the child's exit code, None while it runs; one that is a failure is told once."""
        code = None if self._child is None else self._child.poll()
        if code and not (self._changed or self._told or self._said):
            autoreload.logger.error("The worker ended with %s; it is started anew when the code changes.", code)
            self._said = True
        return code

    def _start(self) -> None:
        self._changed = self._said = False
        environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        command = autoreload.get_child_arguments()
        # In a session of its own, for Ctrl-C to reach it once: a second signal ends the grace.
        self._child = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603 - ourselves

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._told = True
        self._signal(signal.SIGTERM if number == signal.SIGHUP else number)

    def _signal(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)
