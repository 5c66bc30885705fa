"""`InferenceService` itself: metadata, spec and status, and the rules that concern more than one part of the
spec.

Everything that reads a service begins here: `InferenceService.from_manifest(body)`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from paceline.api.accelerator import Accelerator
from paceline.api.admission import Admission
from paceline.api.base import ApiModel, Rule, StatusModel, rules
from paceline.api.endpoint import Endpoint
from paceline.api.model import Model
from paceline.api.observability import Observability
from paceline.api.placement import Disruption, Placement
from paceline.api.router import Router
from paceline.api.runtime import Runtime
from paceline.api.scaling import Scaling, Transition
from paceline.api.slo import Slo
from paceline.api.status import InferenceServiceStatus

_PROMPT_LIMIT = (
    "(has(self.admission.maxPromptTokens) ? self.admission.maxPromptTokens : self.model.maxModelTokens - "
    "self.admission.maxOutputTokens)"
)

_NEVER_ZERO = "(!has(self.scaling.replicaBounds) || self.scaling.replicaBounds.min > 0)"

HOLD_S = 30
"""Where at least one replica runs: it covers a router or an engine that is being replaced."""

HOLD_FROM_ZERO_S = 300
"""Where a request may find none: engines of 70B were seen to take two minutes from their creation to Ready."""


class InferenceServiceSpec(ApiModel):
    """What the user wants."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="!self.model.uri.startsWith('bundled://') || self.scaling.tensorParallelSize in [1, 3]",
                field_path=".scaling.tensorParallelSize",
                message="it must divide the 9 attention heads and 1536 inner columns of the bundled model: "
                "write 1 or 3",
            ),
            Rule(
                cel="!self.model.uri.startsWith('bundled://') || "
                "self.scaling.allowedTensorParallelSizes.all(size, size in [1, 3])",
                field_path=".scaling.allowedTensorParallelSizes",
                message="each must divide the 9 attention heads and 1536 inner columns of the bundled "
                "model: write 1 or 3",
            ),
            Rule(
                cel="!self.accelerator.resourceName.startsWith('nvidia.com/mig-') || "
                "self.scaling.tensorParallelSize == 1",
                field_path=".scaling.tensorParallelSize",
                message="MIG slices cannot talk to each other: write 1, or spec.accelerator.resourceName: "
                "nvidia.com/gpu",
            ),
            Rule(
                cel="has(self.admission.maxPromptTokens) || self.admission.maxOutputTokens < "
                "self.model.maxModelTokens",
                field_path=".admission.maxOutputTokens",
                message="it leaves no token of spec.model.maxModelTokens for a prompt: write less, or a "
                "larger maxModelTokens",
            ),
            Rule(
                cel="!has(self.admission.maxPromptTokens) || self.admission.maxPromptTokens + "
                "self.admission.maxOutputTokens <= self.model.maxModelTokens",
                field_path=".admission.maxPromptTokens",
                message="with maxOutputTokens it exceeds spec.model.maxModelTokens: write less, or a larger "
                "maxModelTokens",
            ),
            Rule(
                cel="self.slo.latencyClasses.all(c, c.timeToFirstToken.thresholdMilliseconds + "
                "c.timeToFirstToken.perThousandPromptTokensMilliseconds * (has(c.maxPromptTokens) && "
                f"c.maxPromptTokens < {_PROMPT_LIMIT} ? c.maxPromptTokens : {_PROMPT_LIMIT}) / 1000 + "
                "self.admission.maxOutputTokens * c.timePerOutputToken.thresholdMilliseconds <= "
                "self.admission.maxRequestSeconds * 1000)",
                field_path=".admission.maxRequestSeconds",
                message="a request may meet its targets in spec.slo.latencyClasses and still be cut off "
                "(TTFT target + maxOutputTokens × TPOT target is longer): write more seconds, or a smaller "
                "maxOutputTokens",
            ),
            Rule(
                cel="self.slo.latencyClasses.size() > 0 || (has(self.slo.preset) && self.slo.preset == "
                "'Interactive' ? 500 + self.admission.maxOutputTokens * 30 : 2000 + "
                "self.admission.maxOutputTokens * 100) <= self.admission.maxRequestSeconds * 1000",
                field_path=".admission.maxRequestSeconds",
                message="a request may meet the targets of spec.slo.preset (Standard unless given) and "
                "still be cut off (TTFT target + maxOutputTokens × TPOT target is longer): write more "
                "seconds, or a smaller maxOutputTokens",
            ),
            Rule(
                cel="!has(self.router.hold.maxSeconds) || self.router.hold.maxSeconds <= "
                "self.admission.maxRequestSeconds",
                field_path=".router.hold.maxSeconds",
                message="longer than spec.admission.maxRequestSeconds: write at most that",
            ),
            Rule(
                cel="!has(self.transition.maxHoldSeconds) || self.transition.maxHoldSeconds <= "
                "(has(self.router.hold.maxSeconds) ? self.router.hold.maxSeconds : "
                "self.admission.maxRequestSeconds)",
                field_path=".transition.maxHoldSeconds",
                message="a request is held no longer than spec.router.hold.maxSeconds, nor than "
                "spec.admission.maxRequestSeconds where that is not given: write at most that, or a longer hold",
            ),
            Rule(
                cel=f"{_NEVER_ZERO} || !has(self.router.hold.maxSeconds) || self.router.hold.maxSeconds > 0",
                field_path=".router.hold.maxSeconds",
                message="spec.scaling.replicaBounds.min is 0, so a request must be held while an engine starts: "
                "write longer than a start takes, or leave this out (300)",
            ),
            Rule(
                cel=f"{_NEVER_ZERO} || self.router.hold.maxRequests > 0",
                field_path=".router.hold.maxRequests",
                message="spec.scaling.replicaBounds.min is 0, and only a held request starts an engine: write at "
                "least 1",
            ),
            Rule(
                cel=f"{_NEVER_ZERO} || self.router.hold.maxRequests * self.router.replicas <= "
                "self.runtime.maxSequences + self.admission.maxQueuedRequestsPerReplica",
                field_path=".router.hold.maxRequests",
                message="spec.scaling.replicaBounds.min is 0, and times spec.router.replicas this is more than the "
                "first replica takes at once (spec.runtime.maxSequences + "
                "spec.admission.maxQueuedRequestsPerReplica), which would refuse the rest: write less, or more of "
                "those",
            ),
            Rule(
                cel="self.accelerator.resourceName != 'cpu' || self.model.quantization.weights != 'FP8' || "
                "has(self.runtime.emulation)",
                field_path=".model.quantization.weights",
                message="FP8 weights need a GPU and spec.accelerator.resourceName is cpu: write INT8 or None",
            ),
            Rule(
                cel="!has(self.scaling.gpuBudget) || self.accelerator.resourceName != 'cpu'",
                field_path=".scaling.gpuBudget",
                message="it counts GPUs, and spec.accelerator.resourceName is cpu: leave it out",
            ),
            Rule(
                cel="[self.runtime.resources.requests, self.runtime.resources.limits].all(r, "
                "!r.exists(name, name.startsWith('nvidia.com/') || name.startsWith('amd.com/')))",
                field_path=".runtime.resources",
                message="GPUs follow from spec.accelerator.resourceName and "
                "spec.scaling.tensorParallelSize: write cpu, memory and other resources here",
            ),
        )
    )

    paused: bool = Field(
        default=False,
        description="The operator leaves everything as it is, whatever changes, until this is false again.",
    )
    model: Model = Field(description="Which weights are served and how they are held.")
    slo: Slo = Field(
        default_factory=Slo, description="What a good request is, and how many of them there must be."
    )
    scaling: Scaling = Field(description="The two dials: replicas, and GPUs per replica.")
    transition: Transition = Field(
        default_factory=Transition,
        description="How long a change of the engine pods may take before it is rolled back.",
    )
    admission: Admission = Field(default_factory=Admission, description="Limits on requests.")
    accelerator: Accelerator = Field(default_factory=Accelerator, description="The device of a replica.")
    placement: Placement = Field(default_factory=Placement, description="Where engine pods go.")
    disruption: Disruption = Field(
        default_factory=Disruption, description="What node drains may take at once."
    )
    runtime: Runtime = Field(default_factory=Runtime, description="The container of an engine pod.")
    router: Router = Field(default_factory=Router, description="The pods in front of the engines.")
    endpoint: Endpoint = Field(default_factory=Endpoint, description="Who may talk to the service.")
    observability: Observability = Field(
        default_factory=Observability, description="How Prometheus finds the pods."
    )

    @property
    def hold_seconds(self) -> int:
        """The longest that a request waits at the gate, given or derived."""
        if self.router.hold.max_seconds is not None:
            return self.router.hold.max_seconds
        usual = HOLD_S if self.scaling.idle_seconds is None else HOLD_FROM_ZERO_S
        longest = max(usual, self.transition.max_hold_seconds)
        return min(longest, self.admission.max_request_seconds)

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that is let in, given or derived."""
        if self.admission.max_prompt_tokens is not None:
            return self.admission.max_prompt_tokens
        return self.model.max_model_tokens - self.admission.max_output_tokens


class ObjectMeta(StatusModel):
    """The metadata that Paceline reads; the API server owns the rest."""

    name: str
    namespace: str = "default"
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class InferenceService(ApiModel):
    """An LLM service that is kept inside its latency objectives at the lowest GPU cost."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                message="metadata.name: a Service gets this name: write lower case letters, digits and '-', "
                "beginning with a letter",
            ),
        )
    )

    api_version: Literal["paceline.dev/v1alpha1"] = "paceline.dev/v1alpha1"
    kind: Literal["InferenceService"] = "InferenceService"
    metadata: ObjectMeta
    spec: InferenceServiceSpec
    status: InferenceServiceStatus = Field(default_factory=InferenceServiceStatus)

    @property
    def served_names(self) -> tuple[str, ...]:
        return self.spec.model.served_names or (self.metadata.name,)

    @property
    def selector(self) -> str:
        """Label selector of the engine pods, as /scale shows it."""
        return f"paceline.dev/service={self.metadata.name},paceline.dev/component=engine"
