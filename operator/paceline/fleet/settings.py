"""What an installation of the operator decides for every service: images, names of neighbours, grace times.

Filled once at start by the controller (from flags and the chart) and passed to `plan`. Nothing in here may
change the template of an engine pod that already exists: see `engine_deployment`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ImagePullPolicy = Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Default images; `spec.runtime.image` wins over the first three."""

    runtime_gpu: str
    runtime_cpu: str
    emulator: str
    """Serves `spec.runtime.emulation`; usually the router image, which holds the emulator without an
    engine."""

    router: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    images: Images
    operator_version: str
    operator_namespace: str
    """Where the operator runs: the NetworkPolicies admit its pods."""

    operator_pod_labels: Mapping[str, str] = field(
        default_factory=lambda: {"app.kubernetes.io/name": "paceline-operator"}
    )
    prometheus_namespace_labels: Mapping[str, str] = field(default_factory=dict)
    """Namespaces whose pods may scrape metrics; empty selects every namespace, because a default that names
    one would silently leave a service without metrics elsewhere."""

    prometheus_pod_labels: Mapping[str, str] = field(
        default_factory=lambda: {"app.kubernetes.io/name": "prometheus"}
    )
    image_pull_policy: ImagePullPolicy = "IfNotPresent"
    pod_monitor_available: bool = False
    """Whether the API server knows the kind PodMonitor; the controller asks."""

    pod_monitor_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the cluster's Prometheus selects PodMonitors by."""

    outer_drain_limit_s: int = 600
    """How long the cluster lets a pod leave that something outside of Paceline takes, whatever the pod's own grace:
    the default of the cluster autoscaler's --max-graceful-termination-sec."""

    foreign_writer_grace_s: float = 300.0
    """How long a field written by another manager is left alone: time for a person to notice and undo."""
