"""A manifest served on one machine: the fleet's arguments, in the terms of one process, and nothing silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from paceline.cli.local_service import CannotServeHere, LocalRun, local_run, read_manifest

STATE = Path("/somewhere")


def manifest(spec: dict[str, Any] | None = None) -> str:
    body = {
        "apiVersion": "paceline.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "chat"},
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct", "maxModelTokens": 2048},
            "admission": {"maxOutputTokens": 256},
            "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
            "accelerator": {"resourceName": "cpu"},
            **(spec or {}),
        },
    }
    return yaml.safe_dump(body)


def run_of(text: str, environ: dict[str, str] | None = None) -> LocalRun:
    return local_run(read_manifest(text), host="127.0.0.1", port=8123, state=STATE, environ=environ or {})


def value_of(run: LocalRun, flag: str) -> str:
    return run.args[run.args.index(flag) + 1]


def test_the_process_gets_what_a_pod_would_get_but_for_what_is_the_pods() -> None:
    run = run_of(manifest())
    assert run.args[0] == "serve"
    assert value_of(run, "--model-uri") == "bundled://smollm2-135m-instruct"
    assert value_of(run, "--device") == "cpu"
    assert value_of(run, "--port") == "8123"
    assert value_of(run, "--host") == "127.0.0.1"
    assert value_of(run, "--targets") == str(run.targets_path) == "/somewhere/targets.json"
    assert value_of(run, "--admin-socket") == "/somewhere/admin.sock"
    assert "--routers" not in run.args
    assert run.served_name == "chat"
    assert run.needs_vllm
    assert not run.needs_gpu
    assert run.left_out == ()


def test_arguments_for_vllm_stay_behind_the_dashes() -> None:
    run = run_of(manifest({"runtime": {"extraArgs": ["--seed=1"]}}))
    assert run.args[-2:] == ("--", "--seed=1")
    assert run.args.index("--targets") < run.args.index("--")


def test_an_emulated_service_needs_neither_vllm_nor_gpu() -> None:
    spec = {
        "runtime": {"emulation": {"stepMilliseconds": 5}},
        "accelerator": {"resourceName": "nvidia.com/gpu"},
    }
    run = run_of(manifest(spec))
    assert "--emulate" in run.args
    assert not run.needs_vllm
    assert not run.needs_gpu


def test_what_has_no_meaning_here_is_named() -> None:
    spec = {
        "scaling": {"mode": "Manual", "replicas": 3, "tensorParallelSize": 1},
        "router": {"replicas": 2},
        "endpoint": {"apiKeySecretRef": {"name": "keys"}},
        "runtime": {"resources": {"limits": {"memory": "8Gi"}}},
        "disruption": {"maxUnavailable": 1},
    }
    told = " ".join(run_of(manifest(spec)).left_out)
    for field in (
        "spec.scaling.replicas",
        "spec.router",
        "spec.endpoint.apiKeySecretRef",
        "spec.runtime.resources",
        "spec.disruption",
    ):
        assert field in told


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("kind: [", "not YAML", id="not-yaml"),
        pytest.param("kind: Deployment", "0 objects", id="another-kind"),
        pytest.param(f"{manifest()}---\n{manifest()}", "2 objects", id="two-services"),
        pytest.param(manifest({"modle": {}}), "spec.modle", id="a-typing-error"),
        pytest.param(manifest({"scaling": {"replicas": "many"}}), "spec.scaling.replicas", id="not-a-number"),
        pytest.param(manifest({"model": {"uri": "pvc://weights/llama"}}), "spec.model.uri", id="a-volume"),
        pytest.param(
            manifest({"model": {"uri": "hf://org/name@main", "secretRef": {"name": "hf"}}}),
            "HF_TOKEN",
            id="a-secret-that-is-not-here",
        ),
        pytest.param(
            manifest(
                {
                    "runtime": {
                        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
                    }
                }
            ),
            "export A",
            id="a-variable-from-a-secret",
        ),
    ],
)
def test_what_cannot_be_served_here_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(CannotServeHere) as refused:
        run_of(text)
    assert named in str(refused.value)


def test_a_secret_may_stand_in_the_environment() -> None:
    spec = {
        "model": {"uri": "hf://org/name@main", "secretRef": {"name": "hf"}, "maxModelTokens": 4096},
        "runtime": {
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "B", "value": "2"},
            ]
        },
    }
    run = run_of(manifest(spec), environ={"HF_TOKEN": "t", "A": "1"})
    assert run.env == {"B": "2"}
