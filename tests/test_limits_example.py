"""The example of limits: the service that it calls is never asked too much."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from command_line import ROOT


@pytest.fixture
def app(migrated_url: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("limits_app", ROOT / "examples" / "limits" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.queue.point_at(migrated_url)
    yield module
    module.queue.close()
    del sys.modules[spec.name]


def test_the_service_is_not_asked_too_much(app: ModuleType) -> None:
    seconds = app.main(calls=20)
    assert (app.service.answered, app.service.refused) == (20, 0)
    assert seconds > app.PERIOD.total_seconds()
