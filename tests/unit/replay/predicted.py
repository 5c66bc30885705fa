"""A prediction for the tests."""

from __future__ import annotations

from dataclasses import replace

from e2e.replay.prediction import Asked, Held, Prediction, scene_of
from e2e.replay.scene import SCENE
from e2e.replay.traffic import Recipe


def prediction(**other: object) -> Prediction:
    made = Prediction(
        source="dense",
        recipe=Recipe(),
        fingerprint="abc",
        scene=scene_of(SCENE),
        commit="1234567",
        seed=1,
        requests=10,
        failed=0,
        attainment=0.99,
        attainment_by_prompt_decile=(1.0,) * 9 + (None,),
        gpus=2.5,
        gpus_between=(2.4, 2.6),
        asked=(Asked(at_s=0.0, tensor_parallel_size=1, replicas=1),),
        held=(Held(at_s=0.0, gpus=1),),
    )
    return replace(made, **other)  # type: ignore[arg-type]
