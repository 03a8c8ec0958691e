"""What `flask worker run` works on, found there as anybody's queue is; imported in its application context."""

from __future__ import annotations

from flask import current_app

from graphile_worker_py.contrib.flask.command_line import NAME
from graphile_worker_py.queue import Queue

queue: Queue = current_app.extensions[NAME].queue
