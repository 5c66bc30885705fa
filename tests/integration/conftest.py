"""The API server that all tests of this folder share: started once, on the first test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.control_plane import ControlPlane, control_plane


@pytest.fixture(scope="session", name="control_plane")
def _control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
