"""Every kind of mistake in a manifest, against the real API server: refused, on the field at fault, with the way out.

Each case is the accepted minimal manifest with one mistake in it, so that nothing else can be the reason.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes.client import ApiException

from paceline_core import UriError, parse_uri
from tests.integration.apiserver.conftest import Create, minimal

pytestmark = pytest.mark.apiserver

ABSENT = object()
LATER = "2099-01-01T00:00:00Z"
HUB = {"spec.model.uri": "hf://org/name@main"}
SHORT = {
    "name": "short",
    "maxPromptTokens": 1024,
    "timeToFirstToken": {"thresholdMilliseconds": 500},
    "timePerOutputToken": {"thresholdMilliseconds": 40},
}
LONG = {
    "name": "long",
    "timeToFirstToken": {"thresholdMilliseconds": 900},
    "timePerOutputToken": {"thresholdMilliseconds": 40},
}


def bad(id: str, changes: Mapping[str, Any], *, field: str, says: str) -> Any:
    return pytest.param(changes, field, says, id=id)


URIS = [
    bad(
        f"uri-{id}",
        {"spec.model.uri": uri, "spec.scaling.tensorParallelSize": 1},
        field="spec.model.uri",
        says=says,
    )
    for id, uri, says in (
        ("scheme-unknown", "gs://bucket/path", "write hf://org/name@revision"),
        ("scheme-missing", "meta-llama/Llama-3.1-8B", "write hf://org/name@revision"),
        ("path-on-the-node", "/models/llama", "write hf://org/name@revision"),
        ("empty", "", "should be at least 1 chars long"),
        ("too-long", "hf://org/" + "n" * 600 + "@main", "may not be more than 512"),
        ("hub-without-revision", "hf://meta-llama/Llama-3.1-8B", "write hf://org/name@main"),
        ("hub-without-org", "hf://gpt2@main", "write hf://org/name@revision"),
        ("hub-with-empty-revision", "hf://org/name@", "write hf://org/name@revision"),
        ("hub-with-space", "hf://org/na me@main", "write hf://org/name@revision"),
        ("gguf-file", "hf://org/name/model-Q4_K_M.gguf@main", "write hf://org/name@revision"),
        ("gguf-file-in-a-claim", "pvc://weights/model.gguf", "write the uri of the safetensors checkpoint"),
        ("gguf-repository", "hf://TheBloke/Llama-2-7B-GGUF@main", "write the uri of the safetensors"),
        ("claim-without-path", "pvc://weights", "write pvc://claim/path"),
        ("claim-leaving-itself", "pvc://weights/../../etc", "write pvc://claim/path"),
        ("claim-name-in-capitals", "pvc://Weights/llama", "write pvc://claim/path"),
        ("s3-without-path", "s3://bucket", "write s3://bucket/path"),
        ("s3-bucket-in-capitals", "s3://Bucket/llama", "write s3://bucket/path"),
        ("bundled-unknown", "bundled://llama-8b", "write bundled://smollm2-135m-instruct"),
    )
]

MODEL = [
    bad("uri-missing", {"spec.model.uri": ABSENT}, field="spec.model.uri", says="Required value"),
    *(
        bad(
            f"weights-{weights}",
            {"spec.model.quantization": {"weights": weights}},
            field="spec.model.quantization.weights",
            says=says,
        )
        for weights, says in (
            ("GGUF", "gone from vLLM: write FP8, INT8 or INT4"),
            ("bitsandbytes", "gone from vLLM: write FP8, INT8 or INT4"),
            ("NF4", "gone from vLLM: write FP8, INT8 or INT4"),
            ("Sparse24", "gone from vLLM: write FP8, INT8 or INT4"),
            ("2:4", "gone from vLLM: write FP8, INT8 or INT4"),
            ("fp8", "write Auto, None, FP8, INT8 or INT4"),
        )
    ),
    bad(
        "int8-made-at-load",
        {**HUB, "spec.model.quantization": {"weights": "INT8", "source": "Online"}},
        field="spec.model.quantization.source",
        says="write weights: FP8, or source: Checkpoint",
    ),
    bad(
        "no-quantization-from-a-quantized-checkpoint",
        {**HUB, "spec.model.quantization": {"weights": "None", "source": "Checkpoint"}},
        field="spec.model.quantization.source",
        says="write source: Auto",
    ),
    bad(
        "fp8-on-a-cpu",
        {"spec.model.quantization": {"weights": "FP8"}, "spec.accelerator": {"resourceName": "cpu"}},
        field="spec.model.quantization.weights",
        says="write INT8 or None",
    ),
    bad(
        "int4-of-the-bundled-model",
        {"spec.model.quantization": {"weights": "INT4"}},
        field="spec.model.quantization.weights",
        says="write None or INT8",
    ),
    bad(
        "more-tokens-than-the-bundled-model-has",
        {"spec.model.maxModelTokens": 16384},
        field="spec.model.maxModelTokens",
        says="write 8192 or less",
    ),
    bad(
        "kv-cache-too-small",
        {"spec.model.kvCache": {"size": "1Mi"}},
        field="spec.model.kvCache.size",
        says="write 64Mi or more",
    ),
    bad(
        "kv-cache-too-small-as-a-number",
        {"spec.model.kvCache": {"size": 4}},
        field="spec.model.kvCache.size",
        says="write 64Mi or more",
    ),
    bad(
        "kv-cache-not-a-quantity",
        {"spec.model.kvCache": {"size": "4 GB"}},
        field="spec.model.kvCache.size",
        says="such as 4Gi",
    ),
    bad(
        "kv-cache-dtype-unknown",
        {"spec.model.kvCache": {"dtype": "INT4"}},
        field="spec.model.kvCache.dtype",
        says='supported values: "Auto", "FP8"',
    ),
    bad(
        "cache-for-a-bundled-model",
        {"spec.model.cache": {"persistentVolumeClaim": {"claimName": "weights"}}},
        field="spec.model.cache",
        says="leave it out",
    ),
    bad(
        "token-for-a-bundled-model",
        {"spec.model.secretRef": {"name": "hf-token"}},
        field="spec.model.secretRef",
        says="leave it out",
    ),
    bad(
        "secret-name-in-capitals",
        {**HUB, "spec.model.secretRef": {"name": "HF_TOKEN"}},
        field="spec.model.secretRef.name",
        says="lower case letters",
    ),
    bad(
        "served-name-with-space",
        {"spec.model.servedNames": ["my model"]},
        field="spec.model.servedNames[0]",
        says="write letters, digits",
    ),
    bad(
        "served-name-twice",
        {"spec.model.servedNames": ["a", "a"]},
        field="spec.model.servedNames[1]",
        says="Duplicate value",
    ),
]

SCALING = [
    bad(
        "replicas-missing", {"spec.scaling.replicas": ABSENT}, field="spec.scaling.replicas", says="Required"
    ),
    bad(
        "tp-missing",
        {"spec.scaling.tensorParallelSize": ABSENT},
        field="spec.scaling.tensorParallelSize",
        says="Required value",
    ),
    bad("scaling-missing", {"spec.scaling": ABSENT}, field="spec.scaling", says="Required value"),
    bad(
        "replicas-zero",
        {"spec.scaling.replicas": 0},
        field="spec.scaling.replicas",
        says="greater than or equal to 1",
    ),
    bad("replicas-text", {"spec.scaling.replicas": "two"}, field="spec.scaling.replicas", says="integer"),
    bad(
        "mode-unknown",
        {"spec.scaling.mode": "Automatic"},
        field="spec.scaling.mode",
        says='supported values: "Manual", "Auto", "Advisory"',
    ),
    bad(
        "tp-does-not-divide-the-heads",
        {"spec.scaling.tensorParallelSize": 2},
        field="spec.scaling.tensorParallelSize",
        says="write 1 or 3",
    ),
    bad(
        "tp-divides-the-heads-but-not-the-inner-layer",
        {"spec.scaling.tensorParallelSize": 9},
        field="spec.scaling.tensorParallelSize",
        says="write 1 or 3",
    ),
    bad(
        "allowed-tp-does-not-divide-the-heads",
        {"spec.scaling.allowedTensorParallelSizes": [1, 2]},
        field="spec.scaling.allowedTensorParallelSizes",
        says="write 1 or 3",
    ),
    bad(
        "tp-not-allowed",
        {**HUB, "spec.scaling.allowedTensorParallelSizes": [4, 8]},
        field="spec.scaling.tensorParallelSize",
        says="write one of those, or add it there",
    ),
    bad(
        "tp-of-mig-slices",
        {
            **HUB,
            "spec.scaling.tensorParallelSize": 2,
            "spec.accelerator": {"resourceName": "nvidia.com/mig-3g.40gb"},
        },
        field="spec.scaling.tensorParallelSize",
        says="write 1, or spec.accelerator.resourceName: nvidia.com/gpu",
    ),
    bad(
        "replicas-outside-of-the-bounds",
        {"spec.scaling.replicaBounds": {"min": 2, "max": 4}},
        field="spec.scaling.replicas",
        says="write a number within them, or widen them",
    ),
    bad(
        "bounds-the-wrong-way-round",
        {"spec.scaling.replicas": 3, "spec.scaling.replicaBounds": {"min": 4, "max": 2}},
        field="spec.scaling.replicaBounds.min",
        says="write a number up to spec.scaling.replicaBounds.max",
    ),
    bad(
        "shape-over-the-budget",
        {**HUB, "spec.scaling": {"replicas": 3, "tensorParallelSize": 4, "gpuBudget": {"max": 8}}},
        field="spec.scaling.gpuBudget.max",
        says="write fewer of them, or a larger budget",
    ),
    bad(
        "bounds-over-the-budget",
        {
            **HUB,
            "spec.scaling": {
                "replicas": 1,
                "tensorParallelSize": 4,
                "replicaBounds": {"max": 5},
                "allowedTensorParallelSizes": [8, 2, 4],
                "gpuBudget": {"max": 8},
            },
        },
        field="spec.scaling.replicaBounds.max",
        says="write fewer replicas or a larger budget",
    ),
    bad(
        "budget-of-gpus-on-a-cpu",
        {"spec.scaling.gpuBudget": {"max": 8}, "spec.accelerator": {"resourceName": "cpu"}},
        field="spec.scaling.gpuBudget",
        says="leave it out",
    ),
    bad(
        "auto-without-a-limit",
        {"spec.scaling": {"mode": "Auto", "replicas": 1, "tensorParallelSize": 1}},
        field="spec.scaling.replicaBounds",
        says="write replicaBounds.max, or gpuBudget.max",
    ),
    bad(
        "zero-replicas",
        {"spec.scaling.replicas": 0, "spec.scaling.replicaBounds": {"min": 0, "max": 2}},
        field="spec.scaling.replicas",
        says="should be greater than or equal to 1",
    ),
    bad(
        "idle-time-of-a-service-that-never-goes-to-zero",
        {"spec.scaling.replicaBounds": {"max": 2}, "spec.scaling.scaleToZero": {"idleSeconds": 600}},
        field="spec.scaling.scaleToZero",
        says="unless spec.scaling.replicaBounds.min is 0: write that",
    ),
    *(
        bad(
            f"zero-with-a-hold-of-{id}",
            {"spec.scaling.replicaBounds": {"min": 0, "max": 2}, "spec.router": router},
            field=f"spec.router.hold.{field}",
            says=says,
        )
        for id, router, field, says in (
            ("no-requests", {"hold": {"maxRequests": 0}}, "maxRequests", "write at least 1"),
            ("no-time", {"hold": {"maxSeconds": 0}}, "maxSeconds", "write longer than a start takes"),
            ("more-than-one-replica-takes", {"replicas": 4}, "maxRequests", "write less, or more of those"),
        )
    ),
    bad(
        "override-outside-of-the-bounds",
        {
            **HUB,
            "spec.scaling.replicaBounds": {"max": 4},
            "spec.scaling.override": {"replicas": 5, "tensorParallelSize": 4, "expiresAt": LATER},
        },
        field="spec.scaling.override.replicas",
        says="write a number within them, or widen them",
    ),
    bad(
        "override-to-a-tp-that-is-not-allowed",
        {
            **HUB,
            "spec.scaling": {
                "replicas": 1,
                "tensorParallelSize": 4,
                "allowedTensorParallelSizes": [4, 8],
                "override": {"replicas": 1, "tensorParallelSize": 2, "expiresAt": LATER},
            },
        },
        field="spec.scaling.override.tensorParallelSize",
        says="write one of those, or add it there",
    ),
    bad(
        "override-over-the-budget",
        {
            **HUB,
            "spec.scaling": {
                "replicas": 1,
                "tensorParallelSize": 4,
                "gpuBudget": {"max": 8},
                "override": {"replicas": 3, "tensorParallelSize": 4, "expiresAt": LATER},
            },
        },
        field="spec.scaling.override",
        says="write fewer of them, or a larger budget",
    ),
    bad(
        "override-without-an-end",
        {"spec.scaling.override": {"replicas": 1, "tensorParallelSize": 1, "expiresAt": "tomorrow"}},
        field="spec.scaling.override.expiresAt",
        says="date-time",
    ),
    bad(
        "pending-longer-than-ready",
        {"spec.transition": {"readyDeadlineSeconds": 60, "pendingDeadlineSeconds": 90}},
        field="spec.transition.pendingDeadlineSeconds",
        says="write at most that",
    ),
    bad(
        "a-hold-for-nothing",
        {"spec.transition": {"maxHoldSeconds": 60}},
        field="spec.transition.maxHoldSeconds",
        says="spec.transition.inPlace or recreate is Enabled: write one of them",
    ),
    bad(
        "a-hold-longer-than-the-gate-holds",
        {
            "spec.transition": {"inPlace": "Enabled", "maxHoldSeconds": 60},
            "spec.router": {"hold": {"maxSeconds": 30}},
        },
        field="spec.transition.maxHoldSeconds",
        says="write at most that, or a longer hold",
    ),
    bad(
        "a-hold-longer-than-a-request",
        {"spec.transition": {"inPlace": "Enabled", "maxHoldSeconds": 3600}},
        field="spec.transition.maxHoldSeconds",
        says="write at most that, or a longer hold",
    ),
]

SLO = [
    *(
        bad(
            f"objective-{percent}",
            {"spec.slo": {"objectivePercent": percent}},
            field="spec.slo.objectivePercent",
            says=says,
        )
        for percent, says in (
            ("49.9", 'write a quoted number from "50" to "99.99"'),
            ("100", 'write a quoted number from "50" to "99.99"'),
            ("p99", 'write a quoted number from "50" to "99.99"'),
            (99.0, "must be of type string"),
        )
    ),
    bad(
        "preset-unknown",
        {"spec.slo": {"preset": "Fast"}},
        field="spec.slo.preset",
        says='supported values: "Interactive", "Standard"',
    ),
    bad(
        "preset-and-classes",
        {"spec.slo": {"preset": "Standard", "latencyClasses": [LONG]}},
        field="spec.slo.preset",
        says="write preset or latencyClasses, not both",
    ),
    bad(
        "last-class-bounded",
        {"spec.slo": {"latencyClasses": [SHORT]}},
        field="spec.slo.latencyClasses",
        says="leave its maxPromptTokens out",
    ),
    bad(
        "class-before-the-last-unbounded",
        {"spec.slo": {"latencyClasses": [LONG, {**LONG, "name": "longer"}]}},
        field="spec.slo.latencyClasses",
        says="write maxPromptTokens in every other one",
    ),
    bad(
        "classes-descending",
        {"spec.slo": {"latencyClasses": [SHORT, {**SHORT, "name": "shorter", "maxPromptTokens": 512}, LONG]}},
        field="spec.slo.latencyClasses",
        says="write the classes with ascending maxPromptTokens",
    ),
    bad(
        "class-twice",
        {"spec.slo": {"latencyClasses": [SHORT, {**LONG, "name": "short"}]}},
        field="spec.slo.latencyClasses[1]",
        says="Duplicate value",
    ),
    bad(
        "class-without-a-target",
        {"spec.slo": {"latencyClasses": [{k: v for k, v in LONG.items() if k != "timePerOutputToken"}]}},
        field="spec.slo.latencyClasses[0].timePerOutputToken",
        says="Required value",
    ),
    bad(
        "class-name-in-capitals",
        {"spec.slo": {"latencyClasses": [{**LONG, "name": "Long"}]}},
        field="spec.slo.latencyClasses[0].name",
        says="write lower case letters",
    ),
    bad(
        "target-zero",
        {"spec.slo": {"latencyClasses": [{**LONG, "timeToFirstToken": {"thresholdMilliseconds": 0}}]}},
        field="spec.slo.latencyClasses[0].timeToFirstToken.thresholdMilliseconds",
        says="greater than or equal to 1",
    ),
]

ADMISSION = [
    bad(
        "prompt-and-output-longer-than-the-model",
        {"spec.admission": {"maxPromptTokens": 8000, "maxOutputTokens": 1000}},
        field="spec.admission.maxPromptTokens",
        says="write less, or a larger maxModelTokens",
    ),
    bad(
        "output-leaves-no-prompt",
        {"spec.model.maxModelTokens": 2048},
        field="spec.admission.maxOutputTokens",
        says="write less, or a larger maxModelTokens",
    ),
    bad(
        "preset-longer-than-the-request-may-take",
        {"spec.admission": {"maxRequestSeconds": 60}},
        field="spec.admission.maxRequestSeconds",
        says="write more seconds, or a smaller maxOutputTokens",
    ),
    bad(
        "class-longer-than-the-request-may-take",
        {
            "spec.slo": {
                "latencyClasses": [
                    {
                        **LONG,
                        "timeToFirstToken": {
                            "thresholdMilliseconds": 500,
                            "perThousandPromptTokensMilliseconds": 8000,
                        },
                    }
                ]
            },
            "spec.admission": {"maxRequestSeconds": 100},
        },
        field="spec.admission.maxRequestSeconds",
        says="write more seconds, or a smaller maxOutputTokens",
    ),
    bad(
        "held-longer-than-the-request-may-take",
        {
            "spec.admission": {"maxRequestSeconds": 20, "maxOutputTokens": 16},
            "spec.router": {"hold": {"maxSeconds": 30}},
        },
        field="spec.router.hold.maxSeconds",
        says="write at most that",
    ),
]

PODS = [
    bad(
        "resource-unknown",
        {"spec.accelerator": {"resourceName": "gpu"}},
        field="spec.accelerator.resourceName",
        says="write nvidia.com/gpu",
    ),
    bad(
        "products-of-a-cpu",
        {"spec.accelerator": {"resourceName": "cpu", "products": ["NVIDIA-H200"]}},
        field="spec.accelerator.products",
        says="leave it out",
    ),
    bad(
        "node-selector-with-a-bad-key",
        {"spec.accelerator": {"nodeSelector": {"a b": "c"}}},
        field="spec.accelerator.nodeSelector",
        says="write a name such as",
    ),
    bad(
        "toleration-with-exists-and-a-value",
        {"spec.accelerator": {"tolerations": [{"key": "gpu", "operator": "Exists", "value": "x"}]}},
        field="spec.accelerator.tolerations[0].value",
        says="leave value out",
    ),
    bad(
        "toleration-of-nothing",
        {"spec.accelerator": {"tolerations": [{"effect": "NoSchedule"}]}},
        field="spec.accelerator.tolerations[0]",
        says="write operator: Exists, or a key",
    ),
    bad(
        "env-that-paceline-sets",
        {"spec.runtime": {"env": [{"name": "HF_TOKEN", "value": "secret"}]}},
        field="spec.runtime.env[0].name",
        says="leave it out",
    ),
    bad(
        "env-of-paceline",
        {"spec.runtime": {"env": [{"name": "PACELINE_BUNDLED_MODELS", "value": "/tmp"}]}},
        field="spec.runtime.env[0].name",
        says="leave it out",
    ),
    bad(
        "env-twice",
        {"spec.runtime": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        field="spec.runtime.env[1]",
        says="Duplicate value",
    ),
    bad(
        "env-without-a-value",
        {"spec.runtime": {"env": [{"name": "A"}]}},
        field="spec.runtime.env[0]",
        says="write either value or valueFrom",
    ),
    bad(
        "env-from-two-places",
        {
            "spec.runtime": {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "secretKeyRef": {"name": "a", "key": "b"},
                            "configMapKeyRef": {"name": "a", "key": "b"},
                        },
                    }
                ]
            }
        },
        field="spec.runtime.env[0].valueFrom",
        says="write one of valueFrom.secretKeyRef and valueFrom.configMapKeyRef",
    ),
    *(
        bad(
            f"extra-arg-{id}",
            {"spec.runtime": {"extraArgs": [argument]}},
            field="spec.runtime.extraArgs[0]",
            says=says,
        )
        for id, argument, says in (
            ("that-opens-a-route", "--enable-server-load-tracking", "write one of --async-scheduling"),
            ("with-a-field-of-its-own", "--tensor-parallel-size=2", "write one of --async-scheduling"),
            ("that-moves-the-port", "--port=9000", "write one of --async-scheduling"),
            ("without-dashes", "enforce-eager", "write one of --async-scheduling"),
            ("that-needs-a-value", "--seed", "write one of --async-scheduling"),
            ("bitsandbytes", "--quantization=bitsandbytes", "use spec.model.quantization"),
            ("gguf", "--load-format=gguf", "use spec.model.quantization"),
        )
    ),
    bad(
        "extra-args-for-an-emulated-engine",
        {"spec.runtime": {"emulation": {}, "extraArgs": ["--seed=1"]}},
        field="spec.runtime.extraArgs",
        says="leave them out",
    ),
    bad(
        "step-smaller-than-the-batch",
        {"spec.runtime": {"maxSequences": 256, "maxBatchedTokens": 128}},
        field="spec.runtime.maxBatchedTokens",
        says="write at least spec.runtime.maxSequences",
    ),
    bad(
        "gpus-by-hand",
        {"spec.runtime": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
        field="spec.runtime.resources",
        says="write cpu, memory and other resources here",
    ),
    bad(
        "resources-not-a-quantity",
        {"spec.runtime": {"resources": {"limits": {"memory": "lots"}}}},
        field="spec.runtime.resources.limits[memory]",
        says="write a number with a unit",
    ),
    bad(
        "request-over-the-limit",
        {"spec.runtime": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}},
        field="spec.runtime.resources.requests",
        says="write requests up to the limits",
    ),
    bad(
        "shared-memory-too-small",
        {"spec.runtime": {"sharedMemorySize": "1Mi"}},
        field="spec.runtime.sharedMemorySize",
        says="write 64Mi or more",
    ),
    bad(
        "emulated-step-of-no-time",
        {"spec.runtime": {"emulation": {"stepMilliseconds": 0}}},
        field="spec.runtime.emulation.stepMilliseconds",
        says="greater than or equal to 1",
    ),
    bad(
        "emulated-step-beside-a-timing-table",
        {
            "spec.runtime": {
                "emulation": {
                    "stepMilliseconds": 10,
                    "timing": {"gpu": "h200", "model": "llama-3.1-70b", "format": "fp8"},
                }
            }
        },
        field="spec.runtime.emulation.stepMilliseconds",
        says="leave it out",
    ),
    bad(
        "half-a-timing-table",
        {"spec.runtime": {"emulation": {"timing": {"gpu": "h200", "model": "llama-3.1-70b"}}}},
        field="spec.runtime.emulation.timing.format",
        says="Required value",
    ),
    bad(
        "drains-never-allowed",
        {"spec.disruption": {"maxUnavailable": 0}},
        field="spec.disruption.maxUnavailable",
        says="greater than or equal to 1",
    ),
    bad(
        "spread-with-domains-but-no-need",
        {"spec.placement": {"topologySpreadConstraints": [{"topologyKey": "zone", "minDomains": 2}]}},
        field="spec.placement.topologySpreadConstraints[0].minDomains",
        says="leave minDomains out",
    ),
    bad(
        "scheduler-name-in-capitals",
        {"spec.placement": {"schedulerName": "My Scheduler"}},
        field="spec.placement.schedulerName",
        says="lower case letters",
    ),
    bad("router-none", {"spec.router": {"replicas": 0}}, field="spec.router.replicas", says="equal to 1"),
    bad(
        "router-policy-unknown",
        {"spec.router": {"policy": "Random"}},
        field="spec.router.policy",
        says='supported values: "PowerOfTwo", "RoundRobin", "CacheAware"',
    ),
    bad(
        "network-policy-unknown",
        {"spec.endpoint": {"networkPolicy": "Open"}},
        field="spec.endpoint.networkPolicy",
        says='supported values: "Managed", "None"',
    ),
    bad(
        "pod-monitor-as-a-boolean",
        {"spec.observability": {"podMonitor": True}},
        field="spec.observability.podMonitor",
        says="must be of type string",
    ),
    bad(
        "name-too-long",
        {"metadata.name": "n" * 41},
        field="metadata.name",
        says="may not be more than 40",
    ),
    bad(
        "name-no-service-can-have",
        {"metadata.name": "7b.chat"},
        field="<nil>",
        says="metadata.name: a Service gets this name",
    ),
]

ALL = [*URIS, *MODEL, *SCALING, *SLO, *ADMISSION, *PODS]


@pytest.mark.parametrize(("changes", "field", "says"), ALL)
def test_a_mistake_is_refused_on_its_field_with_the_way_out(
    create: Create, changes: Mapping[str, Any], field: str, says: str
) -> None:
    with pytest.raises(ApiException) as refused:
        create(_changed(minimal(), changes))
    status = json.loads(refused.value.body)
    causes = [(cause.get("field", ""), cause["message"]) for cause in status["details"]["causes"]]
    assert refused.value.status == 422, status["message"]
    assert any(where == field and says in message for where, message in causes), "\n".join(map(str, causes))
    # What a person sees names the field, too.
    assert field.replace("<nil>", "metadata.name") in status["message"]


def _accepted(create: Create, uri: str) -> bool:
    try:
        create(_changed(minimal(), {"spec.model.uri": uri}))
    except ApiException as refused:
        if refused.status != 422:
            raise
        return False
    return True


def _parsed(uri: str) -> bool:
    try:
        parse_uri(uri)
    except UriError:
        return False
    return True


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scheme=st.sampled_from(["hf://", "pvc://", "s3://", "bundled://", "gs://", ""]),
    rest=st.one_of(
        st.text(alphabet="aB1-._/@ ", max_size=14),
        st.from_regex(r"[aB]{1,3}/[aB.]{1,3}@[a./]{1,4}", fullmatch=True),
        st.from_regex(r"[a.-]{1,4}/([aB.-]{1,3}/){0,2}[.]{0,2}(a[.]gguf)?", fullmatch=True),
    ),
)
def test_the_api_server_and_the_parser_of_the_pods_take_the_same_uris(
    create: Create, scheme: str, rest: str
) -> None:
    assert _accepted(create, scheme + rest) is _parsed(scheme + rest)


def test_at_least_forty_kinds_of_mistakes_are_tried() -> None:
    assert len(ALL) >= 40


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.replicas", 2),
        ("spec.transition.canary.prompts", 16),
        ("spec.model.quantisation", {"weights": "FP8"}),
        ("spec.runtime.env", [{"name": "A", "value": "1", "valuefrom": {}}]),
        ("spec.placement.topologySpreadConstraints", [{"topologyKey": "zone", "labelSelector": {}}]),
    ],
)
def test_an_unknown_field_is_refused_where_the_client_asks_for_it_and_pruned_where_not(
    create: Create, path: str, value: Any
) -> None:
    manifest = _changed(minimal(), {path: value})
    with pytest.raises(ApiException) as refused:
        create(manifest)
    assert refused.value.status == 400
    assert f'unknown field "{path}' in json.loads(refused.value.body)["message"]

    kept = create(manifest, field_validation="Ignore")
    plain = create(_changed(minimal(), {path: _known(value)} if _known(value) else {}))
    assert kept["spec"] == plain["spec"]


def _known(value: Any) -> Any:
    """A list of the value without its unknown key; None where the whole field is unknown."""
    if not isinstance(value, list):
        return None
    return [{k: v for k, v in item.items() if k not in ("valuefrom", "labelSelector")} for item in value]


def _changed(manifest: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = changed
        for name in parents:
            place = place.setdefault(name, {})
        if value is ABSENT:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
    return changed
