"""The service that is played: what its manifest says on the cluster, and the same for the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from paceline.planner import Goal, Shape
from paceline.simulator.service import Service, service_of
from paceline.simulator.simulation import Setting
from paceline.simulator.written_values import Slo
from paceline_core.latency import LatencyTarget, Targets

SHORTENED: Final = 8
"""A pod's start and the dwell time of the tensor-parallel size are shorter by this factor than an ordinary 70B has them
(120 s, 3,600 s); nothing else is."""

OUTSIDE_S: Final = 3
"""Of a start: what passes on the test cluster before and after the emulated engine's own start (scheduling, container,
probe)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Periods, windows and scrapes are the defaults of chart, API and simulator, which a test holds equal."""

    model: str = "llama-3.1-70b"
    format: str = "fp8"
    gpu: str = "h200"
    sizes: tuple[int, ...] = (1, 4)
    max_replicas: int = 4
    max_gpus: int = 8
    """One node of the test cluster."""
    ttft_ms: int = 850
    """A prompt of 4,100 tokens, the longest but for one in a hundred, is read in 480 ms at TP1 and one of 7,000, as the
    shift has them, in 880 ms; at TP4 in 330 ms."""
    tpot_ms: int = 60
    objective_percent: str = "95.0"
    max_sequences: int = 64
    max_model_tokens: int = 16_384
    max_output_tokens: int = 1000
    max_request_s: int = 90
    start_s: int = 120 // SHORTENED
    """From the creation of a pod to Ready."""
    dwell_s: int = 3600 // SHORTENED
    stabilization_s: int = 300
    first_tensor_parallel_size: int = 1
    first_replicas: int = 1
    by_hand_s: int = 60
    """So long the first shape is held by hand (mode Manual). A planner that has seen a service stand idle takes the first
    requests for a jump of the load, and expects such jumps for the rest of the hour."""

    @property
    def targets(self) -> Targets:
        one = LatencyTarget(
            name="all",
            max_prompt_tokens=None,
            ttft_ms=self.ttft_ms,
            ttft_per_thousand_prompt_tokens_ms=0,
            tpot_ms=self.tpot_ms,
        )
        return Targets(classes=(one,))

    @property
    def first(self) -> Shape:
        return Shape(tensor_parallel_size=self.first_tensor_parallel_size, replicas=self.first_replicas)

    @property
    def service(self) -> Service:
        slo = Slo(targets=self.targets, objective=float(self.objective_percent) / 100)
        service = service_of(
            model=self.model,
            format=self.format,
            gpu=self.gpu,
            sizes=self.sizes,
            max_gpus=self.max_gpus,
            slo=slo,
        )
        return replace(service, max_sequences=self.max_sequences, min_dwell_s=float(self.dwell_s))

    @property
    def goal(self) -> Goal:
        return replace(
            self.service.goal,
            max_replicas=self.max_replicas,
            scale_down_stabilization_s=float(self.stabilization_s),
        )

    @property
    def setting(self) -> Setting:
        """A change of the size only ever brings the new pods up beside the old ones, as on the cluster."""
        return Setting(
            timing=self.service.timing,
            goal=self.goal,
            max_gpus=self.max_gpus,
            start_s=float(self.start_s),
            transitions=("Surge",),
        )

    def spec(self) -> Mapping[str, Any]:
        """Of the InferenceService, where it is not the example's of an emulated engine. Nothing is loaded: the model is
        named for what is emulated."""
        return {
            "model": {
                "uri": "hf://meta-llama/Llama-3.1-70B-Instruct@main",
                "maxModelTokens": self.max_model_tokens,
            },
            "slo": {
                "objectivePercent": self.objective_percent,
                "latencyClasses": [
                    {
                        "name": "all",
                        "timeToFirstToken": {"thresholdMilliseconds": self.ttft_ms},
                        "timePerOutputToken": {"thresholdMilliseconds": self.tpot_ms},
                    }
                ],
            },
            "scaling": {
                "mode": "Manual",
                "replicas": self.first_replicas,
                "tensorParallelSize": self.first_tensor_parallel_size,
                "allowedTensorParallelSizes": list(self.sizes),
                "replicaBounds": {"min": 1, "max": self.max_replicas},
                "gpuBudget": {"max": self.max_gpus},
                "scaleDown": {"stabilizationSeconds": self.stabilization_s},
            },
            "transition": {"minDwellSeconds": self.dwell_s},
            "admission": {
                "maxOutputTokens": self.max_output_tokens,
                "maxRequestSeconds": self.max_request_s,
            },
            "runtime": {
                "sharedMemorySize": "64Mi",
                "maxSequences": self.max_sequences,
                "emulation": {
                    "startSeconds": self.start_s - OUTSIDE_S,
                    "timing": {"gpu": self.gpu, "model": self.model, "format": self.format},
                },
            },
        }


SCENE: Final = Scene()
