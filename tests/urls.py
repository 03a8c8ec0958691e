"""URLs of databases, for what takes no conninfo."""

from __future__ import annotations

from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict


def as_url(conninfo: str, driver: str = "") -> str:
    """Return a conninfo as a URL, with SQLAlchemy's name of a driver if one is given."""
    part = {name: quote(str(value), safe="") for name, value in conninfo_to_dict(conninfo).items()}
    scheme, user = f"postgresql+{driver}" if driver else "postgresql", f"{part['user']}:{part.get('password', '')}"
    return f"{scheme}://{user}@/{part['dbname']}?host={part['host']}&port={part['port']}"
