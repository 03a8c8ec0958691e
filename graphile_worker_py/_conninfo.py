"""Where the database is: what libpq could not read, or would misread, is refused without being repeated."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import conninfo as libpq

from graphile_worker_py.errors import InvalidConninfo

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


def connect(conninfo: str, **keywords: Any) -> psycopg.Connection[Any]:
    """Connect; raise InvalidConninfo for a setting that libpq does not take, and else what psycopg raises."""
    try:
        return psycopg.connect(conninfo, **keywords)
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
