"""Tests that need Node skip themselves where it is missing, and say why."""

from __future__ import annotations

import pytest

from interop import node


@pytest.fixture(scope="session")
def packages() -> None:
    """Skip the test where Node's workers cannot be installed."""
    try:
        node.installed()
        for version in node.VERSIONS:
            node.binary(version)
    except node.Unavailable as missing:
        pytest.skip(str(missing))
