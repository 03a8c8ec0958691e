"""What `run` writes to standard error: text for people, or a JSON object in each line for programs."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import datetime, timezone

from graphile_worker_py import JobLogFilter

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Attributes that every record has; others were given as `extra`. The second line is not known to all Pythons.
STANDARD = {
    *vars(logging.makeLogRecord({})),
    *("taskName", "message", "asctime"),
}

logger = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Makes an object of a record: when, how grave, who, what, and the extras it has, such as job_id; all in ASCII.

    An exception is its traceback as text. Extras that JSON has no form for are written as Python shows them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        extras = {name: value for name, value in vars(record).items() if name not in STANDARD and value is not None}
        entry = extras | entry
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        if record.stack_info:
            entry["stack"] = record.stack_info
        try:
            return json.dumps(entry, default=str, allow_nan=False)
        except (ValueError, TypeError):  # not a number, a circle, a key that is no text
            plain = {name: value if isinstance(value, (str, int)) else str(value) for name, value in entry.items()}
            return json.dumps(plain)


def formatter(kind: str) -> logging.Formatter:
    """Return what makes lines of records: "text" or "json"."""
    return JsonFormatter() if kind == "json" else logging.Formatter(TEXT)


def set_up_logging(level: str, kind: str) -> None:
    """Log to standard error, unless the module has set up logging itself; our own level is as asked in any case."""
    taken = bool(logging.root.handlers)
    if not taken:
        handler = logging.StreamHandler()
        handler.setFormatter(formatter(kind))
        handler.addFilter(JobLogFilter())
        logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("graphile_worker_py").setLevel(level.upper())
    if kind != "text":
        logging.captureWarnings(True)
    if kind != "text" and taken:
        logger.warning("the module has set up logging itself, so --log-format %s changes nothing", kind)
