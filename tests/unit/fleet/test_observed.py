"""Verify that raw objects of the API are read for what they say, and that what they do not say is unknown."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from paceline.fleet import Node, Pod, PodInfo, Verdict
from paceline_core import LAYOUT_ANNOTATION, Layout

BARE: dict[str, Any] = {"metadata": {"name": "p", "uid": "u", "creationTimestamp": "2026-11-22T08:00:00Z"}}


def pod(**parts: Any) -> Pod:
    return Pod.parse({**BARE, **parts})


def test_a_pod_that_says_nothing_is_pending_and_unknown() -> None:
    bare = pod()
    assert (bare.phase, bare.ready, bare.deleting, bare.serving) == ("Pending", False, False, False)
    assert (bare.ip, bare.node, bare.verdict, bare.info, bare.unschedulable_since_s) == (None,) * 5


def test_a_pod_on_its_way_out_does_not_serve_although_it_is_ready() -> None:
    """Its drain goes on answering what runs; nothing new is owed to it."""
    meta = {
        **BARE["metadata"],
        "deletionTimestamp": "2026-11-22T08:12:00Z",
        "deletionGracePeriodSeconds": 700,
    }
    leaving = pod(metadata=meta, status={"conditions": [{"type": "Ready", "status": "True"}]})
    assert (leaving.ready, leaving.serving) == (True, False)
    assert leaving.deleting_since_s == leaving.created_at_s + 20


@pytest.mark.parametrize("state", ["state", "lastState"])
def test_the_verdict_is_read_from_the_engines_last_words(state: str) -> None:
    """After the restart of its container it stands in lastState."""
    text = '{"verdict":"Refused","field":"spec.model.uri","message":"no"}'
    status = {
        "containerStatuses": [
            {"name": "sidecar", "state": {"terminated": {"message": "x"}}},
            {"name": "engine", state: {"terminated": {"exitCode": 78, "message": text}}},
        ]
    }
    assert pod(status=status).verdict == Verdict(
        verdict="Refused", field="spec.model.uri", stage=None, message="no"
    )


@pytest.mark.parametrize("text", [None, "", "Killed", "[1]", '{"verdict":"Maybe"}', '{"message":"x"}'])
def test_other_last_words_are_no_verdict(text: str | None) -> None:
    assert Verdict.parse(text) is None


def test_an_ordinary_start_gives_no_reason_and_a_stuck_one_does() -> None:
    def waiting(reason: str) -> Pod:
        return pod(
            status={"containerStatuses": [{"name": "engine", "state": {"waiting": {"reason": reason}}}]}
        )

    assert waiting("ContainerCreating").starting_reason is None
    assert waiting("ImagePullBackOff").starting_reason == "ImagePullBackOff"


def test_unschedulable_and_gated_are_told_apart() -> None:
    def scheduled(reason: str) -> Pod:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "lastTransitionTime": "2026-11-22T08:00:05Z",
        }
        return pod(status={"conditions": [condition]})

    assert scheduled("Unschedulable").unschedulable_since_s == pod().created_at_s + 5
    assert scheduled("SchedulingGated").unschedulable_since_s is None
    assert scheduled("SchedulingGated").scheduling_gated


def test_the_devices_of_a_pod_are_those_of_its_limits() -> None:
    containers = [
        {"name": "engine", "resources": {"limits": {"nvidia.com/gpu": "4", "memory": "1Gi"}}},
        {"name": "other", "resources": {"limits": {"nvidia.com/mig-3g.40gb": "1"}}},
    ]
    assert pod(spec={"containers": containers}).gpus == 5
    assert pod(spec={"containers": [{"name": "engine"}]}).gpus == 0


def test_what_a_pod_does_not_know_of_itself_is_none() -> None:
    info = PodInfo.parse({"version": "1", "model": None, "stages": {"weights": 2, "warmup": None}})
    assert (info.attention_heads, info.emulated, info.draining) == (None, None, None)
    assert info.stage_seconds == {"weights": 2.0}


def test_what_a_pod_says_in_another_form_counts_as_not_said() -> None:
    """It runs what its image says, and the status must stay valid whatever that is."""
    model = {"attentionHeads": "many", "kvHeads": -1, "weightsBytes": True, "revision": "r" * 999}
    info = PodInfo.parse({"emulated": "no", "model": model, "stages": ["x"], "tensorParallelSize": 1.5})
    assert (info.attention_heads, info.kv_heads, info.weights_bytes, info.emulated) == (None,) * 4
    assert (info.layout, info.stage_seconds) == (None, {})
    assert info.model_revision == "r" * 253


@pytest.mark.parametrize(
    ("spec", "leaving"),
    [
        pytest.param({}, False, id="plain"),
        pytest.param({"unschedulable": True}, True, id="cordoned"),
        pytest.param({"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}, True, id="autoscaler"),
        pytest.param({"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}, False, id="gpu-taint"),
    ],
)
def test_a_node_is_leaving_if_it_is_cordoned_or_about_to_be_taken(
    spec: dict[str, Any], leaving: bool
) -> None:
    assert Node.parse({"metadata": {"name": "n"}, "spec": spec}).leaving is leaving


NEVER, TOLD = None, "tp=4,dp=2,change=1"
SILENT, EIGHT, FOUR = None, (8, 1), (4, 2)


@pytest.mark.parametrize(
    ("ordered", "ready", "said", "is_old", "serves_in"),
    [
        pytest.param(
            NEVER, True, SILENT, False, Layout(8), id="its runtime says nothing, and it was told nothing"
        ),
        pytest.param(NEVER, False, SILENT, False, Layout(8), id="it starts"),
        pytest.param(TOLD, True, EIGHT, False, Layout(8), id="it was told, and serves as before"),
        pytest.param(TOLD, False, EIGHT, True, Layout(4, 2), id="it starts in what it was told"),
        pytest.param(TOLD, True, EIGHT, True, None, id="it is back, and has not said as what"),
        pytest.param(TOLD, True, FOUR, False, Layout(4, 2), id="it says so"),
        pytest.param(TOLD, True, SILENT, False, None, id="it was told, and says nothing"),
    ],
)
def test_what_a_pod_serves_in_is_its_own_word_or_unknown(
    ordered: str | None, ready: bool, said: tuple[int, int] | None, is_old: bool, serves_in: Layout | None
) -> None:
    meta = {**BARE["metadata"], "labels": {"paceline.dev/tensor-parallel-size": "8"}}
    if ordered is not None:
        meta["annotations"] = {LAYOUT_ANNOTATION: ordered}
    since = "2026-11-22T09:00:00Z"
    status = {"conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": since}]}
    made = pod(metadata=meta, status=status)
    if said is not None:
        info = PodInfo.parse({"tensorParallelSize": said[0], "dataParallelSize": said[1]})
        made = replace(made, info=replace(info, is_old=is_old))
    assert made.serves_in == serves_in
    assert made.changed_at_s == (None if ordered is None else made.ready_since_s if ready else math.inf)
