"""A job queue for Flask applications: the extension, `flask worker`, and an application context around every job."""

from __future__ import annotations

from graphile_worker_py.contrib.flask.extension import GraphileWorker, NotInitialized
from graphile_worker_py.contrib.flask.settings import InvalidSetting

__all__ = ["GraphileWorker", "InvalidSetting", "NotInitialized"]
