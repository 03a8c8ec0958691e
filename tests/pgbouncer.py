"""A real pgbouncer in transaction mode, before the server of the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import psycopg
from plain_sql import eventually
from psycopg.conninfo import conninfo_to_dict, make_conninfo

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")

PORT = 6432  # pgbouncer's own; it names a socket in a folder of its own, for which no two can compete

# Fewer sessions than the worker has connections, so that each of them is served by whichever is free.
CONFIGURATION = """
[databases]
* = {server}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = 2
logfile = {folder}/log
"""


class PgBouncer:
    """Starts on the first start(), on a socket of its own; restart() cuts all connections off, as one does."""

    def __init__(self, folder: Path, url: str) -> None:
        server = conninfo_to_dict(url)
        self.url = make_conninfo(url, host=str(folder), port=PORT)
        named = {name: server[name] for name in ("host", "port", "user", "password") if server.get(name)}
        self._file = folder / "pgbouncer.ini"
        folder.chmod(0o777)
        self._file.write_text(CONFIGURATION.format(server=make_conninfo("", **named), folder=folder))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        assert PROGRAM is not None
        as_user = {}
        if os.getuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._process = subprocess.Popen([PROGRAM, "-q", str(self._file)], **as_user)
        eventually(self._answers)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "pgbouncer has ended"
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False
