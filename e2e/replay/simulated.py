"""The scene in the simulator, with the cluster's planner; the slow and compiled part, which the scenario never imports."""

from __future__ import annotations

from e2e import results
from e2e.replay.prediction import Asked, Held, Prediction, mean_gpus, scene_of
from e2e.replay.scene import Scene
from e2e.replay.traffic import Recipe, Source, fingerprint, traffic_of
from paceline.planner import Goal, Shape
from paceline.simulator.core.scrapes import Scrapes
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.core.world import World
from paceline.simulator.policies.shapes import Paceline
from paceline.simulator.simulation import Run, simulate
from paceline.simulator.summary import attainment_by_decile, attainment_of


class HandedOver:
    """The planner as it finds a service of the scene: held by hand until then, and its pods' starts were seen."""

    period_s = Paceline.period_s
    reads_scrapes = True

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._planner = Paceline(timing=scene.service.timing)

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape:
        if world.now_s < self._scene.by_hand_s:
            return world.asked
        # The simulator's first pods stand at once; those of the cluster took the time of a start.
        world.start_times.setdefault(self._scene.first.tensor_parallel_size, [float(self._scene.start_s)])
        return self._planner.shape(world, scrapes, goal)


def run_of(traffic: Traffic, scene: Scene, *, seed: int) -> Run:
    return simulate(traffic, scene.setting, HandedOver(scene), first=scene.first, seed=seed)


def predict(source: Source, recipe: Recipe, scene: Scene, *, seed: int) -> Prediction:
    traffic = traffic_of(source, recipe)
    run = run_of(traffic, scene, seed=seed)
    attainment = attainment_of(run.outcomes)
    assert attainment is not None
    trace = run.gpu_trace
    held = tuple(
        Held(at_s=round(at_s, 1), gpus=gpus) for at_s, gpus in zip(trace.at_s, trace.gpus, strict=True)
    )
    return Prediction(
        source=source.name,
        recipe=recipe,
        fingerprint=fingerprint(traffic),
        scene=scene_of(scene),
        commit=results.commit(),
        seed=seed,
        requests=len(traffic),
        failed=int(run.outcomes.failed.sum()),
        attainment=attainment,
        attainment_by_prompt_decile=attainment_by_decile(run.outcomes),
        gpus=mean_gpus(held, until_s=traffic.end_s),
        asked=tuple(
            Asked(
                at_s=round(at_s, 1),
                tensor_parallel_size=shape.tensor_parallel_size,
                replicas=shape.replicas,
            )
            for at_s, shape in run.asked
        ),
        held=held,
    )
