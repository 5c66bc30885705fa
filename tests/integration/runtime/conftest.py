"""One real engine that the tests of this folder share: a start costs half a minute."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.runtime.engine import Client, Engine, client_of, engine


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("engine")) as one:
        one.wait_ready()
        yield one


@pytest.fixture
async def client(shared: Engine) -> AsyncIterator[Client]:
    async with client_of(shared) as one:
        yield one
