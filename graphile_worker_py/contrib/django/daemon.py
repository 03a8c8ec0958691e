"""What `manage.py graphile_worker run` works on: the command line finds it here, as it finds anybody's queue."""

from __future__ import annotations

from graphile_worker_py.contrib.django.app_queue import worker_queue

queue = worker_queue()
