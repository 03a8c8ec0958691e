"""The workers that the other tests here run are the ones they say they are."""

from __future__ import annotations

import subprocess

import psycopg
import pytest

from interop import node

pytestmark = pytest.mark.usefixtures("packages")


@pytest.mark.parametrize("version", node.VERSIONS)
def test_each_version_installs_its_schema(version: str, database_url: str) -> None:
    environment = node.environment(version, database_url)
    subprocess.run([*node.cli(version), "--schema-only"], env=environment, check=True, capture_output=True, timeout=60)
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select max(id) from graphile_worker.migrations").fetchone()
    assert row == ({"0.16.6": 18, "0.17.3": 19, "0.18.0": 20}[version],)
