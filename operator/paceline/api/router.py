"""`spec.router`: the pods in front of the engines (router and gate). Read by the fleet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from paceline.api.base import ApiModel
from paceline.api.runtime import Resources

RouterPolicy = Literal["PowerOfTwo", "RoundRobin", "CacheAware"]


class Hold(ApiModel):
    """Requests that arrive while no engine is ready wait a bounded time."""

    max_requests: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=100, description="Requests that one router pod holds. One more is answered 429. 0 holds none."
    )
    max_seconds: Annotated[int, Field(ge=0, le=3600)] | None = Field(
        default=None,
        description="Longest wait; then 503. The wait counts in the time to the first token. Absent: 30, and "
        "300 where spec.scaling.replicaBounds.min is 0, since an engine starts meanwhile, and at least "
        "spec.transition.maxHoldSeconds; never longer than spec.admission.maxRequestSeconds.",
    )


class Router(ApiModel):
    """The pods in front of the engines."""

    replicas: Annotated[int, Field(ge=1, le=50)] = Field(
        default=2, description="Number of router pods. With 1, a lost router pod is a gap."
    )
    policy: RouterPolicy = Field(
        default="PowerOfTwo",
        description="How an engine is chosen: PowerOfTwo (the less busy of two picked at random), "
        "RoundRobin, or CacheAware (the one that has seen the beginning of the prompt).",
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="CPU and memory of the gate container and of the router container, each.",
    )
    hold: Hold = Field(default_factory=Hold, description="What happens while no engine is ready.")
