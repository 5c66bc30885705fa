"""A service's planner is kept while its timing is the same, and nothing is looked up twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paceline.controller import planners as planners_module
from paceline.controller.planners import Planners
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Node, Observed
from paceline.fleet.timing_prior import TimingPrior, timing_prior
from tests.unit.fleet.services import merged
from tests.unit.fleet.test_timing_prior import FACTS, observed, seventy_b


def test_a_planner_is_kept_as_long_as_its_timing() -> None:
    planners, key = Planners(), ServiceKey("team-a", "chat")
    first = planners.of(key, observed(seventy_b()))
    assert planners.of(key, observed(seventy_b())) is first
    assert planners.of(key, observed(seventy_b(), product="NVIDIA-H100-80GB-HBM3")) is not first


def test_as_long_as_spec_facts_and_nodes_are_the_same_nothing_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand services would else go through a thousand nodes each, at every tick."""
    asked: list[Observed] = []

    def counted(seen: Observed) -> TimingPrior | None:
        asked.append(seen)
        return timing_prior(seen)

    monkeypatch.setattr(planners_module, "timing_prior", counted)
    planners, key, seen = Planners(), ServiceKey("team-a", "chat"), observed(seventy_b(), facts=FACTS)
    first = planners.of(key, seen)
    assert first is not None
    assert planners.of(key, replace(seen, now_s=seen.now_s + 15)) is first
    assert len(asked) == 1
    joined = Node.parse({"metadata": {"name": "b", "labels": {}}, "status": {}})
    for other in (
        replace(seen, nodes=(*seen.nodes, joined)),
        replace(seen, facts=replace(FACTS, kv_heads=4)),
    ):
        planners.of(key, other)
    assert len(asked) == 3


def test_the_sizes_are_those_that_the_spec_allows_the_model_has_and_the_timing_knows() -> None:
    spec = merged(seventy_b(), {"scaling": {"allowedTensorParallelSizes": [4, 8, 16]}})
    found = Planners().of(ServiceKey("team-a", "chat"), observed(spec, facts=FACTS))
    assert found is not None
    assert found.sizes == (4, 8)
