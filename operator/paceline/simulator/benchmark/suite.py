"""A suite file: which services, traffic, scenarios and policies are compared, and by how much work.

    name: quick
    policies: [paceline, hpa-queue, …]          not given: all
    training:                                    where every policy's dials are tuned, once
      - name: 70b
        service: {model: llama-3.1-70b, format: fp8, gpu: h200, tp: "2,4,8", max-gpus: 32, slo: "ttft=…"}
        traffic: {rate: azure.csv, lengths: conv.csv, hours: 3, scale: 0.2, fallback: "diurnal:hours=3"}
    cells:                                       where they are judged, on other traffic
      - name: burst
        trained-on: 70b
        traffic: {synthetic: "burst:rate=3"}

File names are looked up in the folder of `--traces`; without it, or without the file, the fallback is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from paceline.simulator.policies.named import NAMES


class UnreadableSuite(ValueError):
    """The message names the file and the field."""


def _dashed(name: str) -> str:
    return name.replace("_", "-")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_dashed, populate_by_name=True)


class ServiceSpec(_Part):
    model: str
    format: str
    gpu: str
    tp: str = "1,2,4,8"
    max_gpus: Annotated[int, Field(ge=1)] = 32
    slo: str


class TrafficSpec(_Part):
    requests: str | None = None
    rate: str | None = None
    lengths: str | None = None
    synthetic: str | None = None
    fallback: str | None = None
    """Of the form of `synthetic`, for those who have no file."""
    rate_noise: Annotated[float, Field(ge=0, le=20)] = 0.0
    from_hours: Annotated[float, Field(ge=0)] = 0.0
    hours: Annotated[float, Field(gt=0, le=24)] | None = None
    scale: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _one_source(self) -> TrafficSpec:
        if sum(one is not None for one in (self.requests, self.rate, self.synthetic)) != 1:
            raise ValueError("write one of requests, rate and synthetic")
        if self.synthetic is None and self.fallback is None:
            raise ValueError("write a fallback: whoever has no traces runs that")
        return self


class FaultSpec(_Part):
    crash_at: tuple[str, ...] = ()
    metrics_gone: tuple[tuple[str, str], ...] = ()
    lag: str = "0s"


class SloChange(_Part):
    at: str
    slo: str


class Training(_Part):
    name: str
    service: ServiceSpec
    traffic: TrafficSpec
    start_time: str = "120s"


class Cell(_Part):
    name: str
    trained_on: str
    traffic: TrafficSpec
    service: ServiceSpec | None = None
    """Not given: that of the training."""
    policies: tuple[str, ...] | None = None
    """Not given: those of the suite."""
    frontier_points: Annotated[int, Field(ge=0, le=9)] | None = None
    """Not given: that of the suite. 0: as shipped alone."""
    start_time: str = "120s"
    faults: FaultSpec = FaultSpec()
    slo_change: SloChange | None = None
    prior_scale: Annotated[float, Field(gt=0)] = 1.0
    """What our planner believes of the engines' step times, over the truth."""
    truth_scale: Annotated[float, Field(gt=0)] = 1.0
    """Step times over the table's, for everybody."""
    truth_overhead: str | None = None
    """The host's time between two steps, δ, for everybody, such as `3ms`; not given: the table's."""
    cached_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of a prompt, found in the prefix cache of a warm replica."""
    exact_latencies: bool = False
    """Rivals read quantiles from each request, not from vLLM's buckets."""
    first_tp: int | None = None
    """Where `paceline` starts, if not at the careful size."""
    max_gpus_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the GPUs that the unlimited optimum holds at its highest."""
    router: Annotated[str, Field(pattern="^(power-of-two|shortest-queue|round-robin)$")] = "power-of-two"
    seed: int = 1
    kind: Literal["azure", "servegen", "scenario", "stationary", "variation"] = "scenario"
    """Which of the report's targets the cell counts for. `variation`: a conclusion checked in another world."""
    without_fault: str | None = None
    """The cell that is the same without the fault."""


class Suite(_Part):
    name: str
    seed: int = 0
    policies: tuple[str, ...] = NAMES
    trials: Annotated[int, Field(ge=1, le=200)] = 40
    frontier_points: Annotated[int, Field(ge=1, le=9)] = 5
    training: tuple[Training, ...]
    cells: tuple[Cell, ...]

    @model_validator(mode="after")
    def _names_fit(self) -> Suite:
        known = {one.name for one in self.training}
        for cell in self.cells:
            if cell.trained_on not in known:
                raise ValueError(f"cell {cell.name}: trained-on {cell.trained_on}: write a name of training")
            if cell.without_fault is not None and cell.without_fault not in {c.name for c in self.cells}:
                raise ValueError(
                    f"cell {cell.name}: without-fault {cell.without_fault}: write a name of cells"
                )
        for where, policies in (("", self.policies), *((f"cell {c.name}: ", c.policies) for c in self.cells)):
            unknown = [name for name in policies or () if name not in NAMES]
            if unknown:
                raise ValueError(
                    f"{where}policies: {', '.join(unknown)} not known: write some of {', '.join(NAMES)}"
                )
        for what, names in (
            ("training", [t.name for t in self.training]),
            ("cells", [c.name for c in self.cells]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what}: two of one name: write distinct names")
        return self

    def policies_of(self, cell: Cell) -> tuple[str, ...]:
        return self.policies if cell.policies is None else cell.policies

    def frontier_points_of(self, cell: Cell) -> int:
        return self.frontier_points if cell.frontier_points is None else cell.frontier_points

    def training_of(self, cell: Cell) -> Training:
        return next(one for one in self.training if one.name == cell.trained_on)


def read_suite(path: Path) -> Suite:
    try:
        body: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UnreadableSuite(f"{path}: not YAML: {error}") from error
    try:
        return Suite.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableSuite(f"{path}: {where or 'suite'}: {first['msg']}") from error
