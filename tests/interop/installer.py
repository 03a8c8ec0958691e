"""An installer of ours as a servant, like host.mjs: for each database it is told of, queue.migrate().

{"id": 1, "command": "migrate", "database": "host=… dbname=…"} is answered by {"id": 1, "result": [1, 2, …, 20]}, or by
{"id": 1, "error": "…"}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from graphile_worker_py import Queue


def main() -> None:
    """Obey until the end of the input."""
    print(json.dumps({"ready": sys.version}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps({"id": order["id"], **install(order["database"])}), flush=True)


def install(database: str) -> dict[str, Any]:
    """Install, and say which migrations were applied."""
    try:
        with Queue(database) as queue:
            return {"result": queue.migrate()}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
