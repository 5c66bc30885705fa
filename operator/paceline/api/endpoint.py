"""`spec.endpoint`: who may talk to the service. Read by the fleet (keys of the gate, NetworkPolicies)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paceline.api.base import ApiModel, LocalObjectReference


class Endpoint(ApiModel):
    """Who may talk to the service."""

    api_key_secret_ref: LocalObjectReference | None = Field(
        default=None,
        description="Secret whose values are the accepted API keys (`Authorization: Bearer KEY`). Absent: "
        "no key is asked for.",
    )
    network_policy: Literal["Managed", "None"] = Field(
        default="Managed",
        description="Managed: engine pods take traffic from the service's routers and from Prometheus "
        "alone. None: no NetworkPolicy.",
    )
