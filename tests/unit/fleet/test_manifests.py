"""Verify the whole set of objects that a service gets, against files that a person has read.

`make golden` writes the files anew after a change that was meant.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from paceline.fleet.names import ANNOTATION_TEMPLATE, Names, child_keys
from tests.unit.fleet.services import CPU_DEMO, EMULATED, ONE_GPU, SETTINGS, SEVENTY_B, merged
from tests.unit.fleet.simulated_cluster import Cluster, upgraded

GOLDEN = Path(__file__).parent / "golden"

SPECS = [
    pytest.param("cpu-demo", CPU_DEMO, id="cpu-demo"),
    pytest.param("8b-one-gpu", ONE_GPU, id="8b-one-gpu"),
    pytest.param("70b-tp4", SEVENTY_B, id="70b-tp4"),
    pytest.param("emulated", EMULATED, id="emulated"),
]
ALL = [pytest.param(one.values[1], id=one.id) for one in SPECS]


def objects(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(one.object) for one in Cluster(spec).plan().apply]


def engine_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    pods: dict[str, Any] = next(one for one in objects(spec) if one["metadata"]["name"].startswith("chat-tp"))
    return pods


def engine_pod(spec: Mapping[str, Any]) -> dict[str, Any]:
    template: dict[str, Any] = engine_of(spec)["spec"]["template"]["spec"]
    return template


@pytest.mark.parametrize(("name", "spec"), SPECS)
def test_the_objects_of_a_service_are_those_that_were_read(name: str, spec: Mapping[str, Any]) -> None:
    made = objects(spec)
    for one in made:
        annotations = one["metadata"].get("annotations", {})
        if ANNOTATION_TEMPLATE in annotations:
            assert json.loads(annotations[ANNOTATION_TEMPLATE]) == one["spec"]["template"]
            annotations[ANNOTATION_TEMPLATE] = "(the template below, as JSON)"
    text = yaml.dump_all(made, Dumper=_PlainDumper, sort_keys=True, width=100)
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("PACELINE_WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), "run `make golden` if the change was meant"


class _PlainDumper(yaml.SafeDumper):
    """No anchors: a reader looks at one object at a time."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("spec", ALL)
def test_every_child_belongs_to_the_service_and_nothing_has_a_finalizer(spec: Mapping[str, Any]) -> None:
    for one in objects(spec):
        (owner,) = one["metadata"]["ownerReferences"]
        assert owner == {
            "apiVersion": "paceline.dev/v1alpha1",
            "kind": "InferenceService",
            "name": "chat",
            "uid": "uid-of-chat",
            "controller": True,
            "blockOwnerDeletion": False,
        }
        assert "finalizers" not in one["metadata"]
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "paceline"
        assert one["metadata"]["labels"]["paceline.dev/service"] == "chat"


@pytest.mark.parametrize("spec", ALL)
def test_every_child_with_a_fixed_name_is_among_the_keys_that_are_looked_up(spec: Mapping[str, Any]) -> None:
    made = {(one["kind"], one["metadata"]["name"]) for one in objects(spec)}
    variants = {key for key in made if key[0] == "Deployment" and key[1].startswith("chat-tp")}
    assert len(variants) == 1
    assert made - variants <= set(child_keys("chat"))


def test_what_an_engine_pod_needs_comes_before_it_and_the_rest_after() -> None:
    kinds = [(one.kind, one.name) for one in Cluster(CPU_DEMO).plan().apply][:3]
    assert [kind for kind, _ in kinds] == ["ServiceAccount", "ConfigMap", "Deployment"]
    priorities = [one.priority for one in Cluster(CPU_DEMO).plan().apply]
    assert priorities == sorted(priorities)


@pytest.mark.parametrize("spec", ALL)
def test_every_pod_passes_the_restricted_pod_security_standard(spec: Mapping[str, Any]) -> None:
    pods = [one["spec"]["template"]["spec"] for one in objects(spec) if one["kind"] == "Deployment"]
    assert len(pods) == 2
    for pod in pods:
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == 65532
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert all("hostPort" not in port for port in container.get("ports", ()))
        kinds = {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}}
        assert kinds <= {
            "emptyDir",
            "configMap",
            "downwardAPI",
            "secret",
            "persistentVolumeClaim",
            "projected",
        }


@pytest.mark.parametrize("spec", ALL)
def test_only_the_router_pods_get_a_token(spec: Mapping[str, Any]) -> None:
    for one in objects(spec):
        if one["kind"] == "ServiceAccount":
            assert one["automountServiceAccountToken"] is False
        if one["kind"] == "Deployment":
            is_router = one["metadata"]["name"] == "chat-router"
            assert one["spec"]["template"]["spec"]["automountServiceAccountToken"] is is_router


def test_the_memory_limit_counts_the_memory_volumes() -> None:
    """6 GiB for the engine, 1 GiB of /dev/shm, 16 MiB of /run/paceline."""
    resources = engine_pod(CPU_DEMO)["containers"][0]["resources"]
    assert resources["limits"]["memory"] == "7184Mi"
    assert resources["requests"]["memory"] == "3088Mi"


def test_a_replica_asks_for_as_many_gpus_as_it_spans() -> None:
    resources = engine_pod(SEVENTY_B)["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "4"
    assert "nvidia.com/gpu" not in str(engine_pod(CPU_DEMO)["containers"][0]["resources"])


def test_no_default_request_exceeds_a_limit_that_the_user_gave() -> None:
    spec = merged(
        CPU_DEMO, {"runtime": {"resources": {"requests": None, "limits": {"cpu": "100m", "memory": "4Gi"}}}}
    )
    resources = engine_pod(spec)["containers"][0]["resources"]
    assert resources["requests"] == {}


def test_a_pod_may_take_its_longest_request_and_all_that_is_around_it_to_leave() -> None:
    """600 s of request, 60 s until no router sends, 15 s of teardown, 30 s of slack."""
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for one in objects(EMULATED)
        if one["kind"] == "Deployment"
    }
    assert pods.pop("chat-router") == 600 + 15 + 30
    assert list(pods.values()) == [600 + 60 + 15 + 30]


def test_a_start_may_last_as_long_as_a_transition_waits_for_it() -> None:
    spec = merged(EMULATED, {"transition": {"readyDeadlineSeconds": 1801}})
    probe = engine_pod(spec)["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1801


def test_engine_pods_prefer_to_spread_and_products_are_required() -> None:
    (spread,) = engine_pod(EMULATED)["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"] == {
        "matchLabels": {"paceline.dev/service": "chat", "paceline.dev/component": "engine"}
    }
    affinity = engine_pod(SEVENTY_B)["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H200"]}
    ]


def test_the_router_watches_its_own_services_pods_and_opens_no_port() -> None:
    router = next(
        one
        for one in objects(EMULATED)
        if one["metadata"]["name"] == "chat-router" and one["kind"] == "Deployment"
    )
    (sidecar,) = router["spec"]["template"]["spec"]["initContainers"]
    args = sidecar["args"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["command"] == ["paceline-runtime"]
    assert args[0] == "router"
    assert args[args.index("--namespace") + 1] == "team-a"
    assert args[args.index("--selector") + 1] == "paceline.dev/service=chat,paceline.dev/component=engine"
    assert args[args.index("--max-request-seconds") + 1] == "600"
    assert "ports" not in sidecar


def test_the_routers_template_knows_neither_shape_nor_slo() -> None:
    """So neither a scaling nor a new target takes a router pod away."""

    def template(spec: Mapping[str, Any]) -> Any:
        return next(
            one["spec"]["template"]
            for one in objects(spec)
            if one["kind"] == "Deployment" and one["metadata"]["name"] == "chat-router"
        )

    changed = merged(
        EMULATED,
        {
            "scaling": {"replicas": 7, "tensorParallelSize": 3},
            "slo": {"preset": "Interactive", "objectivePercent": "95.0"},
            "router": {"replicas": 5},
        },
    )
    assert template(changed) == template(EMULATED)


def test_only_the_router_prometheus_and_the_operator_reach_an_engine_pod() -> None:
    policy = next(
        one
        for one in objects(EMULATED)
        if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "chat-engine"
    )
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": 8000, "protocol": "TCP"}]
    router, prometheus, operator = rule["from"]
    assert router == {
        "podSelector": {"matchLabels": {"paceline.dev/service": "chat", "paceline.dev/component": "router"}}
    }
    assert prometheus["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
    assert operator["namespaceSelector"] == {
        "matchLabels": {"kubernetes.io/metadata.name": "paceline-system"}
    }


def test_budgets_let_unhealthy_pods_go_and_never_block_a_drain() -> None:
    budgets = {
        one["metadata"]["name"]: one["spec"]
        for one in objects(SEVENTY_B)
        if one["kind"] == "PodDisruptionBudget"
    }
    assert budgets["chat-engine"]["maxUnavailable"] == 2
    assert budgets["chat-router"]["maxUnavailable"] == 1
    for budget in budgets.values():
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert "minAvailable" not in budget


def test_optional_children_that_are_no_longer_wanted_are_deleted() -> None:
    cluster = Cluster(EMULATED, settings=upgraded(SETTINGS, pod_monitor_available=True))
    cluster.settle()
    assert ("PodMonitor", "chat") in cluster.children
    cluster.edit({"endpoint": {"networkPolicy": "None"}, "observability": {"podMonitor": "Disabled"}})
    cluster.settle()
    assert not [key for key in cluster.children if key[0] in ("NetworkPolicy", "PodMonitor")]


def test_the_gate_asks_for_keys_exactly_if_a_secret_is_named() -> None:
    def gate(spec: Mapping[str, Any]) -> tuple[bool, list[str]]:
        pod = next(
            one["spec"]["template"]["spec"]
            for one in objects(spec)
            if one["kind"] == "Deployment" and one["metadata"]["name"] == "chat-router"
        )
        return "--api-keys-dir" in pod["containers"][0]["args"], [volume["name"] for volume in pod["volumes"]]

    assert gate(ONE_GPU) == (True, ["run", "tmp", "slo", "keys"])
    assert gate(EMULATED) == (False, ["run", "tmp", "slo"])


def test_the_longest_names_fit_where_they_go() -> None:
    """A Service is a DNS label, and so is what a ReplicaSet makes of a Deployment's name."""
    longest = Names("a" * 40)
    for name in (longest.variant("tp64-0123abcd"), longest.routers, longest.engine, longest.router):
        assert len(name) <= 63


def test_an_emulated_gpu_is_named_to_each_pod_with_the_size_of_its_own() -> None:
    """What is for tests alone is no field: it comes as variables of the container."""
    spec = merged(
        EMULATED,
        {
            "runtime": {
                "emulation": {
                    "stepMilliseconds": None,
                    "timing": {"gpu": "h200", "model": "llama-3.1-70b", "format": "fp8"},
                    "startSeconds": 5,
                },
                "env": [{"name": "EMULATE_KAPPA", "value": "1.1"}],
            },
            "scaling": {"tensorParallelSize": 4, "replicas": 1},
        },
    )
    (container, *_) = engine_pod(spec)["containers"]
    args = container["args"]
    at = args.index("--emulate")
    assert args[at:] == [
        *("--emulate", "--emulate-gpu", "h200", "--emulate-model", "llama-3.1-70b"),
        *("--emulate-format", "fp8", "--emulate-start-seconds", "5"),
    ]
    assert args[args.index("--tensor-parallel-size") + 1] == "4"
    assert {"name": "EMULATE_KAPPA", "value": "1.1"} in container["env"]
