"""Services and settings that the tests of fleet share, written as a user writes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from paceline.api import InferenceService
from paceline.fleet import Images, ServiceMeta, Settings

NOW_S = 1_795_334_400.0
CREATED = "2026-11-22T07:00:00Z"

SETTINGS = Settings(
    images=Images(
        runtime_gpu="docker.io/paceline/runtime-gpu:dev",
        runtime_cpu="docker.io/paceline/runtime-cpu:dev",
        emulator="docker.io/paceline/router:dev",
        router="docker.io/paceline/router:dev",
    ),
    operator_version="0.1.0",
    operator_namespace="paceline-system",
    image_pull_policy="IfNotPresent",
)

EMULATED: Mapping[str, Any] = {
    "model": {"uri": "bundled://smollm2-135m-instruct", "maxModelTokens": 4096},
    "scaling": {"mode": "Manual", "replicas": 2, "tensorParallelSize": 1},
    "accelerator": {"resourceName": "nvidia.com/gpu"},
    "runtime": {"emulation": {"stepMilliseconds": 10, "startSeconds": 1}},
}

CPU_DEMO: Mapping[str, Any] = {
    "model": {
        "uri": "bundled://smollm2-135m-instruct",
        "servedNames": ["smollm2"],
        "maxModelTokens": 2048,
        "kvCache": {"size": "1Gi"},
    },
    "slo": {
        "latencyClasses": [
            {
                "name": "all",
                "timeToFirstToken": {"thresholdMilliseconds": 2000},
                "timePerOutputToken": {"thresholdMilliseconds": 150},
            }
        ]
    },
    "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
    "admission": {"maxOutputTokens": 512, "maxRequestSeconds": 120},
    "accelerator": {"resourceName": "cpu"},
    "runtime": {
        "maxSequences": 16,
        "sharedMemorySize": "1Gi",
        "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "6Gi"}},
    },
}

ONE_GPU: Mapping[str, Any] = {
    "model": {
        "uri": "hf://meta-llama/Llama-3.1-8B-Instruct@main",
        "secretRef": {"name": "hf-token"},
        "quantization": {"weights": "FP8"},
        "kvCache": {"dtype": "FP8", "size": "40Gi"},
        "maxModelTokens": 32768,
        "cache": {"persistentVolumeClaim": {"claimName": "weights"}},
    },
    "slo": {"preset": "Interactive"},
    "scaling": {"mode": "Auto", "replicas": 2, "tensorParallelSize": 1},
    "accelerator": {
        "products": ["NVIDIA-H200", "NVIDIA-H100-80GB-HBM3"],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    },
    "endpoint": {"apiKeySecretRef": {"name": "keys"}},
    "observability": {"podMonitor": "Enabled"},
}

SEVENTY_B: Mapping[str, Any] = {
    "model": {
        "uri": "pvc://weights/llama-3.1-70b",
        "servedNames": ["chat", "chat-70b"],
        "quantization": {"weights": "FP8", "source": "Checkpoint"},
        "kvCache": {"dtype": "FP8", "size": "60Gi"},
        "maxModelTokens": 49152,
        "trustRemoteCode": True,
    },
    "slo": {
        "latencyClasses": [
            {
                "name": "short",
                "maxPromptTokens": 8192,
                "timeToFirstToken": {"thresholdMilliseconds": 500},
                "timePerOutputToken": {"thresholdMilliseconds": 40},
            },
            {
                "name": "long",
                "timeToFirstToken": {
                    "thresholdMilliseconds": 500,
                    "perThousandPromptTokensMilliseconds": 80,
                },
                "timePerOutputToken": {"thresholdMilliseconds": 40},
            },
        ]
    },
    "scaling": {"mode": "Manual", "replicas": 3, "tensorParallelSize": 4},
    "admission": {"maxPromptTokens": 32000, "maxOutputTokens": 16384, "maxRequestSeconds": 1800},
    "accelerator": {"products": ["NVIDIA-H200"], "nodeSelector": {"pool": "llm"}},
    "placement": {
        "priorityClassName": "serving",
        "schedulerName": "gpu-scheduler",
        "topologySpreadConstraints": [
            {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
    },
    "disruption": {"maxUnavailable": 2},
    "runtime": {
        "image": "registry.example/vllm:0.32",
        "imagePullSecrets": [{"name": "registry"}],
        "sharedMemorySize": "16Gi",
        "maxBatchedTokens": 8192,
        "resources": {"requests": {"cpu": "8"}, "limits": {"memory": "64Gi"}},
        "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
        "extraArgs": ["--async-scheduling", "--seed=7"],
    },
    "router": {
        "replicas": 3,
        "policy": "CacheAware",
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
        "hold": {"maxRequests": 200, "maxSeconds": 60},
    },
    "endpoint": {"networkPolicy": "None"},
}


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch as `kubectl patch --type merge` has it: None removes."""
    made = copy.deepcopy(dict(base))
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(made.get(key), Mapping):
            made[key] = merged(made[key], value)
        else:
            made[key] = copy.deepcopy(value)
    return made


def manifest(spec: Mapping[str, Any], *, name: str = "chat", generation: int = 1) -> dict[str, Any]:
    return {
        "apiVersion": "paceline.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-of-{name}",
            "generation": generation,
            "resourceVersion": "1",
            "creationTimestamp": CREATED,
        },
        "spec": copy.deepcopy(dict(spec)),
    }


def service(spec: Mapping[str, Any], *, name: str = "chat") -> InferenceService:
    return InferenceService.from_manifest(manifest(spec, name=name))


def meta(*, name: str = "chat") -> ServiceMeta:
    return ServiceMeta.parse(manifest({}, name=name))
