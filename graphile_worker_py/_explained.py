"""What the errors of a driver come to here: what to do about a schema, a role or an encoding; all others pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphile_worker_py.errors import InvalidJobSpec, NotSupported, SchemaMissing

# What a missing or half-made schema comes to, depending on what a statement names first: undefined table, function,
# object, or schema.
NOT_INSTALLED = ("42P01", "42883", "42704", "3F000")
FORBIDDEN = "42501"


@contextmanager
def explained(schema: str) -> Iterator[None]:
    """Say how to install a schema that is not there, which text cannot be carried, who may; pass all else."""
    try:
        yield
    except UnicodeEncodeError as e:
        raise InvalidJobSpec(
            f"connection: its client_encoding, {e.encoding}, cannot carry this text; set client_encoding to utf8"
        ) from None
    except Exception as e:
        error: Any = e
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # psycopg's name, and psycopg2's
        if state in NOT_INSTALLED:
            raise SchemaMissing(
                f"schema {schema!r} is not installed here, or not visible to this role: run queue.migrate() "
                f"or graphile-worker-py migrate ({error.diag.message_primary})"
            ) from e
        if state == FORBIDDEN:
            raise NotSupported(
                f"this role may not do this in schema {schema!r} ({error.diag.message_primary}): "
                "connect as the role that installed it, or give this one rights (graphile-worker-py roles)"
            ) from e
        raise
