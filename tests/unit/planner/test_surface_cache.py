"""What a planner keeps between looks is bounded, and what it uses at every look stays."""

from __future__ import annotations

import pytest

from paceline.planner import surface_cache
from paceline.planner.state import Blend
from paceline.planner.surface import Surface
from paceline.planner.surface_cache import SurfaceCache
from tests.unit.planner.looks import CHAT_OUTPUT, CHAT_PROMPT, TIMING, goal

SIZES = (1, 2, 4, 8)


def blend(*, cached: float = 0.0) -> Blend:
    return Blend(prompt=CHAT_PROMPT, output=CHAT_OUTPUT, cached_prompt_share=cached)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Surface]:
    found: list[Surface] = []

    class Counted(Surface):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            found.append(self)

    monkeypatch.setattr(surface_cache, "Surface", Counted)
    return found


def test_while_kappa_of_one_size_moves_the_others_are_not_made_anew(made: list[Surface]) -> None:
    surfaces = SurfaceCache(TIMING).of(blend(), goal=goal())
    assert surfaces is not None
    for step in range(10):
        for size in SIZES:
            scale = 1.0 + step / 100 if size == SIZES[0] else 1.0
            surfaces.surface(size, scale=scale, kv_cache_tokens=None)
    assert len(made) == len(SIZES) + 9
    assert len(surfaces._surfaces) <= 6


def test_one_mix_is_kept(made: list[Surface]) -> None:
    cache = SurfaceCache(TIMING)
    first = cache.of(blend(), goal=goal())
    assert cache.of(blend(), goal=goal()) is first
    other = cache.of(blend(cached=0.5), goal=goal())
    assert other is not first
    assert cache.of(blend(cached=0.5), goal=goal()) is other
