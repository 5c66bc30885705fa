"""The scene is one for simulator and cluster: what the planner is told there is what it is told here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from e2e.load.replay import SHORTEST_PROMPT_TOKENS, prompt_of
from e2e.replay.scene import SCENE
from e2e.scenarios.conftest import emulated_service
from e2e.scenarios.test_replay import service
from paceline.api import InferenceService
from paceline.controller.planning import goal_of
from paceline.fleet.timing_prior import timing_prior
from paceline.simulator.policies.seen import PLANNER_WINDOW_S
from paceline.simulator.policies.shapes import PLANNER_PERIOD_S
from paceline_runtime.emulator import text
from tests.unit.fleet.simulated_cluster import Cluster

VALUES = Path(__file__).parents[3] / "charts" / "paceline" / "values.yaml"
MANIFEST = service(emulated_service)


def test_the_manifest_is_a_service() -> None:
    InferenceService.model_validate(MANIFEST)


def test_the_planner_is_asked_for_the_same_on_both_sides() -> None:
    observed = Cluster(MANIFEST["spec"]).observe()
    goal = goal_of(observed, sizes=SCENE.sizes)
    # Of a hold for want of an engine the planner is told only to put a service to sleep.
    assert replace(goal, hold_s=SCENE.goal.hold_s) == SCENE.goal
    prior = timing_prior(observed)
    assert prior is not None
    assert {size: prior.timing[size] for size in SCENE.sizes} == SCENE.service.timing


def test_cadence_window_and_scrapes_are_those_of_the_cluster() -> None:
    decisions = yaml.safe_load(VALUES.read_text(encoding="utf-8"))["decisions"]
    assert decisions["periodSeconds"] == PLANNER_PERIOD_S
    assert decisions["metricsWindowSeconds"] == PLANNER_WINDOW_S
    spec = InferenceService.model_validate(MANIFEST).spec
    assert spec.observability.scrape_interval_seconds == SCENE.setting.scrape_s


def test_a_prompt_has_as_many_tokens_as_the_engine_counts() -> None:
    for tokens in (SHORTEST_PROMPT_TOKENS, 6, 777, 9000):
        assert text.count_messages([{"content": prompt_of(tokens)}]) == tokens
