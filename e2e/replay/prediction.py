"""What the simulator said before the run, as a small file in this repository. Pure but for reading and writing it.

Written by `python -m e2e.replay predict` (`simulated.py`), read by the scenario.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from e2e.replay.scene import Scene
from e2e.replay.traffic import Recipe, Shift

FOLDER: Final = Path(__file__).parent / "predictions"


class NoPrediction(RuntimeError):
    """Nothing was predicted of what is to be played. The message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A shape, from a moment on."""

    at_s: float
    tensor_parallel_size: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """GPUs that pods hold, from a moment on: those of pods that start or drain too."""

    at_s: float
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    source: str
    recipe: Recipe
    fingerprint: str
    """Of the traffic."""
    scene: dict[str, Any]
    commit: str
    seed: int
    """Of the simulation: routers' choices and start times."""
    requests: int
    failed: int
    attainment: float
    attainment_by_prompt_decile: tuple[float | None, ...]
    gpus: float
    """Held, in the mean over time."""
    gpus_between: tuple[float, float]
    """The least and the most of all simulations."""
    asked: tuple[Asked, ...]
    held: tuple[Held, ...]

    @property
    def tensor_parallel_sizes(self) -> tuple[int, ...]:
        return sequence_of(one.tensor_parallel_size for one in self.asked)

    def write(self, folder: Path = FOLDER) -> Path:
        path = folder / f"{self.source}.json"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, source: str, folder: Path = FOLDER) -> Prediction:
        path = folder / f"{source}.json"
        if not path.exists():
            raise NoPrediction(
                f"{path} is not there: write it with `python -m e2e.replay predict`, and commit it"
            )
        body = json.loads(path.read_text(encoding="utf-8"))
        recipe = body.pop("recipe")
        return cls(
            recipe=Recipe(**{**recipe, "shift": Shift(**recipe["shift"])}),
            attainment_by_prompt_decile=tuple(body.pop("attainment_by_prompt_decile")),
            asked=tuple(Asked(**one) for one in body.pop("asked")),
            held=tuple(Held(**one) for one in body.pop("held")),
            gpus_between=tuple(body.pop("gpus_between")),
            **body,
        )

    def check(self, *, fingerprint: str, scene: Scene) -> None:
        """Raises NoPrediction where it is not about this traffic and this scene."""
        if self.fingerprint != fingerprint:
            raise NoPrediction(
                f"the traffic is {fingerprint} and the prediction is about {self.fingerprint}: give the file that it was "
                "made from, or predict again"
            )
        if self.scene != scene_of(scene):
            raise NoPrediction("the scene has changed since it was predicted: predict again, and commit it")


def scene_of(scene: Scene) -> dict[str, Any]:
    """As JSON has it."""
    written: dict[str, Any] = json.loads(json.dumps(asdict(scene)))
    return written


def is_committed(source: str, folder: Path = FOLDER) -> bool:
    """The file stands in the last commit as it is."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:./{source}.json"], cwd=folder, capture_output=True, check=False
    )
    return shown.returncode == 0 and shown.stdout == (folder / f"{source}.json").read_bytes()


def sequence_of(sizes: Iterable[int]) -> tuple[int, ...]:
    """Each size once for as long as it lasts."""
    found: list[int] = []
    for size in sizes:
        if not found or found[-1] != size:
            found.append(size)
    return tuple(found)


def mean_gpus(held: Sequence[Held], *, until_s: float) -> float:
    """Over the time from 0, where the first one is, on."""
    ends = [*(one.at_s for one in held[1:]), until_s]
    spans = (
        max(min(end_s, until_s) - one.at_s, 0.0) * one.gpus for one, end_s in zip(held, ends, strict=True)
    )
    return sum(spans) / until_s
