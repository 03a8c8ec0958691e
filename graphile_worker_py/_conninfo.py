"""Where the database is: what libpq could not read, or would misread, is refused without being repeated.

And how to get there: what a connection string does not say is set so that a peer that is gone is found within half a
minute, instead of the two hours that Linux takes.
"""

from __future__ import annotations

import os
import re
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo as libpq

from graphile_worker_py.errors import InvalidConninfo, InvalidSchemaName

C = TypeVar("C", bound="psycopg.Connection[Any]")

MAX_IDENTIFIER_BYTES = 63
# The tag of our dollar-quoted function bodies: a schema's name stands inside them, so it may not hold the tag.
BODY_TAG = "$graphile_worker_py$"

# What is wrong with a value, where libpq or psycopg look at it only when they connect.
REFUSED_SETTING = re.compile(r"invalid \S+ value.*|invalid port number.*|bad value for connect_timeout.*")


def check_conninfo(text: str) -> str:
    """Return a connection string or URL that libpq can read; raise InvalidConninfo otherwise."""
    problem = _problem(text)
    if problem is None:
        return text
    scheme, separator, _ = text.partition("://")
    if "+" in scheme:
        problem = "; write postgresql:// without +driver"
    elif separator:
        problem += "; in a URL write @, : and / of a password as %40, %3A and %2F, and an IPv6 address in brackets"
    raise InvalidConninfo(f"libpq cannot read this connection string or URL{problem}")


def check_listen(listen: str | bool | None) -> str | bool:
    """Return where to listen: here (True), nowhere (False), or a conninfo; None leaves it to GRAPHILE_WORKER_LISTEN."""
    if listen is None:
        listen = os.environ.get("GRAPHILE_WORKER_LISTEN") or True
    if isinstance(listen, str):
        return listen != "off" and check_conninfo(listen)
    if not isinstance(listen, bool):
        raise InvalidConninfo(f"listen: expected a conninfo, True, False or None, got {type(listen).__name__}")
    return listen


def settings(conninfo: str, *, connect_timeout: float) -> dict[str, Any]:
    """Return libpq's settings for a connection that the connection string does not decide itself."""
    defaults = {
        "connect_timeout": max(2, round(connect_timeout)),
        "fallback_application_name": "graphile-worker-py",  # a PGAPPNAME goes first
        "client_encoding": "utf8",
        # Nothing was heard for 10 s, then three questions without an answer, 5 s apart: 25 s.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,  # milliseconds, for what was sent and never acknowledged
    }
    named = libpq.conninfo_to_dict(conninfo)
    return {name: value for name, value in defaults.items() if name not in named}


def connect(kind: type[C], conninfo: str, **keywords: Any) -> C:
    """Connect; raise InvalidConninfo for a setting that libpq does not take, and else what psycopg raises."""
    try:
        return kind.connect(conninfo, **keywords)
    except psycopg.Error as error:
        if refused := REFUSED_SETTING.search(str(error)):
            raise InvalidConninfo(f"libpq refuses a connection setting: {refused[0]}") from error
        raise


def _problem(text: str) -> str | None:
    """Say what is wrong, None if nothing is. A host or a port that is none may be a piece of a password."""
    try:
        if "\x00" in text:
            return ""
        named = libpq.conninfo_to_dict(text)
    except (psycopg.ProgrammingError, UnicodeEncodeError):
        return ""
    hosts, ports = (str(named.get(name) or "").split(",") for name in ("host", "port"))
    if any("@" in host[1:] and not host.startswith("/") for host in hosts):  # @name and /path are Unix sockets
        return ": there is an @ in its host"
    return None if all(port.isdigit() or not port for port in ports) else ": its port is not a number"


def check_schema(name: object) -> str:
    """Return name if PostgreSQL takes it whole as a schema's name; raise InvalidSchemaName otherwise."""
    if not isinstance(name, str) or not name:
        raise InvalidSchemaName(f"schema: expected a non-empty str, got {name!r:.40}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidSchemaName("schema: holds a lone surrogate (half a character); remove it") from None
    if size > MAX_IDENTIFIER_BYTES:
        raise InvalidSchemaName(
            f"schema: {size} bytes; PostgreSQL would truncate it, use at most {MAX_IDENTIFIER_BYTES}"
        )
    if "\x00" in name or BODY_TAG in name:
        raise InvalidSchemaName(f"schema: may not hold a NUL character or {BODY_TAG}")
    if name.startswith("pg_"):
        raise InvalidSchemaName("schema: names that start with pg_ are reserved by PostgreSQL; use another")
    return name
