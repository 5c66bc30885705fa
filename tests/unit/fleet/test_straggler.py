"""Verify which pod is called a straggler: never one of which too little is known, never two, never one among equals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.fleet import Node, Observed, PodInfo
from paceline.fleet.straggler import (
    MIN_TOKENS,
    MIN_WAIT_S,
    SLOWER_BY,
    SUSTAINED_S,
    Pace,
    Straggler,
    Suspicion,
    slowest,
    suspected,
)
from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster

WINDOW_S = 60.0


def served(pods: int) -> Observed:
    cluster = Cluster(merged(EMULATED, {"scaling": {"replicas": pods}}))
    cluster.settle()
    return cluster.observe()


MANY = served(8)
ENGINES = tuple(pod for pod in MANY.pods if pod.component == "engine")


def pace(mean_ms: float, *, tokens: float = 1000) -> Pace:
    return Pace(mean_s=mean_ms / 1000, tokens=tokens)


def judged(*paces: Pace | None, observed: Observed = MANY) -> tuple[int, Straggler] | None:
    """The number of the pod that is found, and what is said of it."""
    found = slowest(observed, {pod.name: one for pod, one in zip(ENGINES, paces, strict=False) if one})
    return ([pod.uid for pod in ENGINES].index(found.uid), found) if found is not None else None


def with_pods(**changes: object) -> Observed:
    """The first pod is another one in these."""
    return replace(MANY, pods=(replace(ENGINES[0], **changes), *ENGINES[1:]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("means_ms", "number", "peers_ms"),
    [
        pytest.param((20, 21, 100), 2, 20.5, id="one of three"),
        pytest.param((100, 20), 0, 20, id="one of two"),
        pytest.param((20, 100, 90, 21, 22), 1, 21.5, id="of two slow ones the slower"),
    ],
)
def test_the_slowest_is_held_against_the_median_of_the_others(
    means_ms: tuple[float, ...], number: int, peers_ms: float
) -> None:
    found = judged(*map(pace, means_ms))
    assert found is not None
    assert found[0] == number
    assert found[1].mean_s == means_ms[number] / 1000
    assert found[1].peers_s == pytest.approx(peers_ms / 1000)


@pytest.mark.parametrize(
    "paces",
    [
        pytest.param((), id="nothing is known"),
        pytest.param((pace(100),), id="alone"),
        pytest.param((pace(100), None, None), id="only the slow one was heard"),
        pytest.param((pace(20), pace(60)), id="three times, and not more"),
        pytest.param((pace(20), pace(100, tokens=MIN_TOKENS - 1)), id="too few tokens of the slow one"),
        pytest.param((pace(20, tokens=MIN_TOKENS - 1), pace(100)), id="too few tokens of its only peer"),
        pytest.param((pace(100), pace(100), pace(20)), id="most are slow: the service is"),
        pytest.param((pace(0), pace(100)), id="tokens without a time between them"),
    ],
)
def test_no_pod_is_a_straggler(paces: Sequence[Pace | None]) -> None:
    assert judged(*paces) is None


def test_a_pod_too_slow_for_many_tokens_is_known_by_the_time_that_its_streams_waited() -> None:
    few = MIN_WAIT_S / 2.0
    assert few < MIN_TOKENS
    assert judged(pace(20), pace(2000, tokens=few)) is not None
    assert judged(pace(20), pace(2000, tokens=few - 1)) is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"variant": "tp1-other"}, id="another variant"),
        pytest.param({"ready": False}, id="not Ready"),
        pytest.param({"deleting": True}, id="on its way out"),
        pytest.param({"component": "router"}, id="no engine"),
        pytest.param({"ordered": "tp=1,dp=1,change=3"}, id="does not say what it serves in"),
        pytest.param(
            {"info": PodInfo.parse({"tensorParallelSize": 2, "dataParallelSize": 1})}, id="another layout"
        ),
    ],
)
def test_pods_that_are_not_alike_are_not_compared(changes: dict[str, object]) -> None:
    assert judged(pace(100), pace(20), pace(20)) is not None
    assert judged(pace(100), pace(20), pace(20), observed=with_pods(**changes)) is None


def test_a_pod_on_another_gpu_is_not_compared() -> None:
    def node(name: str, product: str) -> Node:
        labels = {"nvidia.com/gpu.product": product}
        return Node(name=name, cordoned=False, ready=True, labels=labels, taints=(), allocatable={})

    nodes = (node("old", "NVIDIA-L40S"), node("new", "NVIDIA-H200"))
    pods = tuple(replace(pod, node="old" if pod is ENGINES[0] else "new") for pod in ENGINES)
    observed = replace(MANY, pods=pods, nodes=nodes)
    assert judged(pace(100), pace(20), pace(20), observed=observed) is None
    assert judged(pace(100), pace(20), pace(20), pace(300), observed=observed) is not None


PACES = st.lists(
    st.none()
    | st.builds(pace, st.floats(0, 10_000), tokens=st.floats(0, 100_000) | st.sampled_from((199.0, 200.0))),
    max_size=len(ENGINES),
)


@settings(deadline=None)
@given(PACES)
def test_whoever_is_found_is_known_and_far_slower_than_most_of_the_others(paces: list[Pace | None]) -> None:
    found = judged(*paces)
    if found is None:
        return
    number, straggler = found
    judged_pace = paces[number]
    assert judged_pace is not None
    assert judged_pace.is_known
    others = [one.mean_s for n, one in enumerate(paces) if one is not None and one.is_known and n != number]
    assert straggler.mean_s > SLOWER_BY * median(others)
    assert straggler.mean_s >= max(others)


@settings(deadline=None)
@given(PACES)
def test_what_is_not_known_changes_nothing(paces: list[Pace | None]) -> None:
    assert judged(*paces) == judged(*(one if one is not None and one.is_known else None for one in paces))


@settings(deadline=None)
@given(st.floats(0.001, 10_000), st.lists(st.floats(1.0, SLOWER_BY - 0.01), max_size=len(ENGINES)))
def test_pods_that_differ_by_less_than_the_bound_are_never_told_apart(
    mean_ms: float, times: list[float]
) -> None:
    assert judged(*(pace(mean_ms * one) for one in times)) is None


# over time


def straggler(uid: str = "a") -> Straggler:
    return Straggler(pod=f"pod-{uid}", uid=uid, mean_s=0.1, peers_s=0.02)


def looks(*found: tuple[float, Straggler | None], window_s: float = WINDOW_S) -> Suspicion | None:
    """After looks at these times."""
    suspicion = None
    for at_s, one in found:
        suspicion = suspected(suspicion, one, now_s=at_s, window_s=window_s)
    return suspicion


def every_15_s(
    until_s: float, *, uid: str = "a", since_s: float = 0.0
) -> list[tuple[float, Straggler | None]]:
    return [(since_s + 15.0 * n, straggler(uid)) for n in range(int((until_s - since_s) / 15) + 1)]


def test_a_pod_must_be_found_by_every_look_of_a_minute() -> None:
    before, after = looks(*every_15_s(SUSTAINED_S - 15)), looks(*every_15_s(SUSTAINED_S))
    assert before is not None
    assert after is not None
    assert not before.is_proven(window_s=WINDOW_S)
    assert after.is_proven(window_s=WINDOW_S)
    assert not after.is_proven(window_s=300), "one bad moment is in every look of a window"


@pytest.mark.parametrize(
    "between",
    [
        pytest.param([(75.0, None)], id="a look that found nobody"),
        pytest.param([(75.0, straggler("b"))], id="a look that found another"),
        pytest.param([(60.0 + WINDOW_S + 30, straggler())], id="a time without looks"),
        pytest.param([(20.0, straggler())], id="a clock that went back"),
    ],
)
def test_the_time_begins_anew(between: list[tuple[float, Straggler | None]]) -> None:
    since_s = between[-1][0] + 15
    found = looks(*every_15_s(60), *between, (since_s, straggler()))
    assert found is not None
    assert not found.is_proven(window_s=WINDOW_S)
