"""What one process of the operator is told at its start. The command line fills it; nothing changes it
later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paceline.controller.lease import LeaseSettings
from paceline.fleet import Settings as FleetSettings
from paceline.metrics import MetricsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    fleet: FleetSettings
    lease: LeaseSettings
    metrics: MetricsSettings
    namespaces: tuple[str, ...] = ()
    """Where services are served; empty means everywhere."""

    kubeconfig: Path | None = None
    """None means the service account of the pod."""

    metrics_host: str = "0.0.0.0"
    metrics_port: int = 8080
    hub_endpoint: str | None = None
    """Where hf:// models are looked up; None means nowhere: their facts stay unknown to the operator."""

    resync_s: float = 60.0
    """Every service is looked at this often though nothing was heard: deadlines, lost events, our own
    faults."""

    decision_period_s: float = 15.0
    """Between two looks at the metrics: three scrapes of a PodMonitor's default, and as often as vLLM's own
    figures mean something."""

    cluster_gpu_budget: int | None = None
    """GPUs that the services may hold together; None: as many as there are."""

    width: int = 8
    """Urgent requests to the API server at a time. More only makes each slower on a small control plane."""

    narrow: int = 3
    """Other requests at a time."""
