"""`python -m graphile_worker_py` is `graphile-worker-py`."""

from graphile_worker_py.cli import main

main()
