"""What the planner remembers of the mix of lengths."""

from __future__ import annotations

from paceline.planner import Lengths
from paceline.planner.state import MixMemory
from paceline.planner.workload import remembered
from tests.unit.planner.looks import look, shape, traffic

EDGES = (1000.0, 5000.0, 10_000.0)


def window(*counts: float) -> Lengths:
    """Requests of 500, 2,500 and 7,000 tokens."""
    tokens = sum(count * mean for count, mean in zip(counts, (500, 2500, 7000), strict=True))
    return Lengths(upper_tokens=EDGES, counts=counts, mean_tokens=tokens / sum(counts))


def after(windows: list[Lengths], memory: MixMemory | None = None, *, from_s: float = 0.0) -> MixMemory:
    for number, prompt in enumerate(windows):
        seen = look(1.0, shape(1, 1), now_s=from_s + 60.0 * number, traffic=traffic(1.0, prompt=prompt))
        memory = remembered(memory, seen)
    assert memory is not None
    return memory


LONG, SHORT = window(15, 5, 10), window(20, 10, 0)
"""Thirty requests: too few for one window to show that the long ones have gone."""


def test_a_shift_that_one_window_is_too_small_for_is_seen_in_three() -> None:
    before = after([LONG] * 8)
    two = after([SHORT] * 2, before, from_s=480.0)
    assert two.shifted_at_s == before.shifted_at_s
    three = after([SHORT] * 3, before, from_s=480.0)
    assert three.shifted_at_s == 600.0
    assert three.used.prompt.counts == (60, 30, 0)


def test_a_large_window_shows_it_alone() -> None:
    before = after([window(150, 50, 100)] * 3)
    assert after([window(200, 100, 0)], before, from_s=180.0).used.prompt.counts == (200, 100, 0)


def test_windows_that_differ_by_their_noise_are_added_up() -> None:
    memory = after([window(15, 12, 3), window(18, 8, 4), window(12, 15, 3), window(16, 10, 4)] * 3)
    assert memory.shifted_at_s == 0.0
    together = [memory.prompt.older, *memory.prompt.lately]
    assert sum(sum(one.counts) for one in together) == 360


def test_a_window_is_added_once_however_often_it_is_looked_at() -> None:
    memory = after([SHORT])
    for at_s in (15.0, 30.0, 45.0):
        again = remembered(memory, look(1.0, shape(1, 1), now_s=at_s, traffic=traffic(1.0, prompt=SHORT)))
        assert again == memory
