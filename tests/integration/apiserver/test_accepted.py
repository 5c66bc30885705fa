"""What the API server takes, fills in and gives back, against the models that the operator reads it with."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client import ApiException

from paceline.api import (
    GROUP,
    PLURAL,
    VERSION,
    BurnRate,
    Condition,
    DecisionStatus,
    GpuCount,
    InferenceService,
    InferenceServiceSpec,
    InferenceServiceStatus,
    ModelStatus,
    Refused,
    RefusedShape,
    Shape,
    Shapes,
    SloStatus,
    Summary,
    TransitionStatus,
    VariantStatus,
)
from tests.integration.apiserver.conftest import NAMESPACE, Create, example_documents, minimal
from tests.integration.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

NOW = "2026-11-22T08:00:00Z"
FULL_STATUS = InferenceServiceStatus(
    observed_generation=1,
    conditions=(
        Condition(
            type="Ready",
            status="True",
            observed_generation=1,
            last_transition_time=NOW,
            reason="Serving",
            message="2 of 2 replicas answer.",
        ),
        Condition(type="SLOMet", status="Unknown", last_transition_time=NOW, reason="NotMeasured"),
    ),
    model=ModelStatus(revision="a" * 40, attention_heads=9, kv_heads=3, weights_bytes=269_030_016),
    url="http://smollm2.default.svc/v1",
    selector="paceline.dev/service=smollm2,paceline.dev/component=engine",
    replicas=2,
    summary=Summary(
        replicas="2/2", time_to_first_token="-/500ms", time_per_output_token="-/40ms", reason="Serving"
    ),
    shape=Shapes(
        current=Shape(tensor_parallel_size=1, replicas=2),
        desired=Shape(tensor_parallel_size=1, replicas=2),
        last_safe=Shape(tensor_parallel_size=1, replicas=2),
    ),
    gpus=GpuCount(serving=2, starting=0, draining=1, budget=8),
    slo=SloStatus(
        attainment_percent="99.31",
        samples=18422,
        budget_remaining_percent="-31",
        burn_rates=(BurnRate(window_seconds=3600, value="0.7"),),
        as_of=NOW,
    ),
    decisions=(
        DecisionStatus(
            at=NOW,
            mode="Auto",
            before=Shape(tensor_parallel_size=1, replicas=1),
            shape=Shape(tensor_parallel_size=1, replicas=2),
            reason="QueueingAboveTarget",
            message="p99 TTFT would be 900 ms",
            limit="GpuBudget",
            predicted_attainment_percent="99.50",
        ),
    ),
    refused_shapes=(
        RefusedShape(tensor_parallel_size=3, replicas=2, reason="Unschedulable", message="none", until=NOW),
    ),
    variants=(VariantStatus(name="tp1-9f2c1a2b", tensor_parallel_size=1, ready=2, starting=0, draining=1),),
    transition=TransitionStatus(
        id=41,
        from_variant="tp1-77aa77aa",
        to_variant="tp1-9f2c1a2b",
        step="Draining",
        started_at=NOW,
        deadline=NOW,
    ),
    refused=Refused(
        generation=1, field="spec.scaling.tensorParallelSize", reason="Refused", message="2 does not"
    ),
)


@pytest.mark.parametrize("manifest", example_documents())
def test_every_example_is_accepted_and_read(create: Create, manifest: dict[str, Any]) -> None:
    InferenceService.from_manifest(create(manifest))


def test_the_examples_are_found() -> None:
    assert len(example_documents()) >= 5


def test_the_api_server_fills_in_exactly_the_defaults_of_the_models(create: Create) -> None:
    manifest = minimal(
        model={"uri": "hf://org/name@main", "cache": {"persistentVolumeClaim": {"claimName": "weights"}}},
        scaling={"replicas": 2, "tensorParallelSize": 2, "replicaBounds": {"max": 4}},
        slo={
            "latencyClasses": [
                {
                    "name": "all",
                    "timeToFirstToken": {"thresholdMilliseconds": 500},
                    "timePerOutputToken": {"thresholdMilliseconds": 40},
                }
            ]
        },
        placement={"topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}]},
        runtime={
            "emulation": {},
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
        },
    )
    filled = create(manifest)["spec"]
    model = InferenceServiceSpec.from_manifest(manifest["spec"])
    assert filled == model.to_manifest()
    assert InferenceServiceSpec.from_manifest(filled) == model


def test_nothing_is_filled_into_a_status_that_nobody_wrote(create: Create) -> None:
    assert "status" not in create(minimal())


@pytest.mark.parametrize("way", ["inPlace", "recreate"])
@pytest.mark.parametrize("mode", ["Manual", "Auto", "Advisory"])
def test_all_three_modes_are_accepted_and_may_change_pods_in_place_or_by_recreate(
    create: Create, mode: str, way: str
) -> None:
    scaling = {"mode": mode, "replicas": 1, "tensorParallelSize": 1, "replicaBounds": {"max": 4}}
    create(minimal(scaling=scaling, transition={way: "Enabled", "maxHoldSeconds": 60}))


@pytest.mark.parametrize(
    "more", [{}, {"scaleToZero": {"idleSeconds": 60}}, {"scaleToZero": {}}], ids=["alone", "after", "empty"]
)
def test_a_bound_of_zero_is_all_that_scale_to_zero_needs(create: Create, more: dict[str, Any]) -> None:
    scaling = {"mode": "Auto", "replicas": 1, "tensorParallelSize": 1, "replicaBounds": {"min": 0, "max": 4}}
    filled = create(minimal(scaling=scaling | more))["spec"]
    spec = InferenceServiceSpec.from_manifest(filled)
    assert spec.scaling.idle_seconds == more.get("scaleToZero", {}).get("idleSeconds", 1800)
    assert spec.hold_seconds == 300


@pytest.mark.parametrize(
    "uri",
    [
        "hf://meta-llama/Llama-3.1-8B-Instruct@0e9e39f249a16976918f6564b8830bc894c89659",
        "hf://org/name@refs/pr/7",
        "pvc://weights/llama/8b",
        "s3://bucket-1/models/llama-8b/",
        "bundled://smollm2-135m-instruct",
    ],
)
def test_each_form_of_uri_is_accepted(create: Create, uri: str) -> None:
    create(minimal(model={"uri": uri}))


@pytest.mark.parametrize("size", ["64Mi", 67108864, "0.5Gi", "1e9", "8G"])
def test_quantities_are_taken_in_every_form_of_kubernetes(create: Create, size: str | int) -> None:
    body = create(minimal(model={"uri": "bundled://smollm2-135m-instruct", "kvCache": {"size": size}}))
    spec = InferenceServiceSpec.from_manifest(body["spec"])
    assert spec.model.kv_cache.size == str(size)
    assert spec.model.kv_cache.size_bytes >= 64 * 2**20


def test_limits_are_met_exactly(create: Create) -> None:
    create(
        minimal(
            model={"uri": "bundled://smollm2-135m-instruct", "maxModelTokens": 4096},
            admission={"maxPromptTokens": 3096, "maxOutputTokens": 1000, "maxRequestSeconds": 102},
            scaling={
                "replicas": 4,
                "tensorParallelSize": 3,
                "allowedTensorParallelSizes": [1, 3],
                "replicaBounds": {"min": 1, "max": 12},
                "gpuBudget": {"max": 12},
            },
        )
    )


def test_a_full_status_is_stored_and_read_back_as_it_was_written(
    stored: Create, services: client.CustomObjectsApi
) -> None:
    name = stored(minimal())["metadata"]["name"]
    body = {"spec": {"paused": True}, "status": FULL_STATUS.to_manifest()}
    services.patch_namespaced_custom_object_status(
        GROUP, VERSION, NAMESPACE, PLURAL, name, body, field_validation="Strict"
    )
    read = services.get_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name)
    assert InferenceService.from_manifest(read).status == FULL_STATUS
    assert read["spec"]["paused"] is False  # the status subresource writes status alone


def test_scale_shows_and_writes_the_replicas_and_keeps_the_bounds(
    stored: Create, services: client.CustomObjectsApi
) -> None:
    scaling = {"replicas": 1, "tensorParallelSize": 1, "replicaBounds": {"max": 3}}
    name = stored(minimal(scaling=scaling))["metadata"]["name"]
    where = (GROUP, VERSION, NAMESPACE, PLURAL, name)
    services.patch_namespaced_custom_object_status(
        *where, {"status": {"replicas": 1, "selector": "paceline.dev/service=smollm2"}}
    )

    services.patch_namespaced_custom_object_scale(*where, {"spec": {"replicas": 3}})
    scale = services.get_namespaced_custom_object_scale(*where)
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": "paceline.dev/service=smollm2"}
    assert services.get_namespaced_custom_object(*where)["spec"]["scaling"]["replicas"] == 3

    with pytest.raises(ApiException, match=r"spec\.scaling\.replicaBounds") as refused:
        services.patch_namespaced_custom_object_scale(*where, {"spec": {"replicas": 4}})
    assert refused.value.status == 422
    # Nobody would start a replica for the next request: zero is for Auto to choose.
    with pytest.raises(ApiException, match=r"spec\.scaling\.replicas") as refused:
        services.patch_namespaced_custom_object_scale(*where, {"spec": {"replicas": 0}})
    assert refused.value.status == 422


def test_kubectl_shows_the_state_at_a_glance(
    stored: Create, services: client.CustomObjectsApi, control_plane: ControlPlane
) -> None:
    name = stored(minimal())["metadata"]["name"]
    services.patch_namespaced_custom_object_status(
        GROUP, VERSION, NAMESPACE, PLURAL, name, {"status": FULL_STATUS.to_manifest()}
    )
    kubectl = [str(control_plane.binaries / "kubectl"), "--kubeconfig", str(control_plane.kubeconfig), "get"]
    for kinds in ("pis", "paceline"):
        shown = subprocess.run([*kubectl, kinds], check=True, capture_output=True, text=True).stdout
        head, row = (line.split() for line in shown.splitlines())
        assert head == ["NAME", "READY", "REPLICAS", "TP", "GPUS", "TTFT", "TPOT", "REASON", "AGE"]
        assert row[:-1] == ["smollm2", "True", "2/2", "1", "2", "-/500ms", "-/40ms", "Serving"]
