"""One world for the tests that look at it and break it; whatever a test broke is whole again after it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.metrics.world import World, world


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    engines = {"engine-a": 1, "engine-b": 1, "engine-c": 2}
    async with world(tmp_path_factory.mktemp("world"), engines=engines) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="package")
async def one(shared_world: World) -> AsyncIterator[World]:
    shared_world.heal()
    await shared_world.until_measured()
    shared_world.api.asked = 0
    yield shared_world
    shared_world.heal()
