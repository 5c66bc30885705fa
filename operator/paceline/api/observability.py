"""`spec.observability`: how Prometheus finds the pods. Read by the fleet (PodMonitor)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from paceline.api.base import ApiModel


class Observability(ApiModel):
    """How Prometheus finds the pods."""

    pod_monitor: Literal["Auto", "Enabled", "Disabled"] = Field(
        default="Auto",
        description="Whether to make a PodMonitor. Auto: where the cluster knows the kind. Pods carry "
        "prometheus.io annotations in any case.",
    )
    scrape_interval_seconds: Annotated[int, Field(ge=1, le=300)] = Field(
        default=5, description="How often the PodMonitor asks for the metrics of each pod."
    )
