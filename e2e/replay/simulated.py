"""The scene in the simulator, with the cluster's planner; the slow and compiled part, which the scenario never imports."""

from __future__ import annotations

from dataclasses import dataclass, replace

from e2e import results
from e2e.replay.prediction import Asked, Held, Prediction, mean_gpus, scene_of
from e2e.replay.scene import Scene
from e2e.replay.traffic import Recipe, Source, fingerprint, traffic_of
from paceline.planner import Goal, Shape
from paceline.simulator.core.scrapes import Scrapes
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.core.world import World
from paceline.simulator.policies.shapes import Paceline
from paceline.simulator.simulation import simulate
from paceline.simulator.summary import attainment_by_decile, attainment_of


class HandedOver:
    """The planner as it finds a service of the scene: held by hand until then, and its pods' starts were seen."""

    period_s = Paceline.period_s
    reads_scrapes = True

    def __init__(self, scene: Scene, *, at_s: float) -> None:
        self._scene = scene
        self._at_s = at_s
        self._planner = Paceline(timing=scene.service.timing)

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape:
        if world.now_s < self._at_s:
            return world.asked
        # The simulator's first pods stand at once; those of the cluster took the time of a start.
        world.start_times.setdefault(self._scene.first.tensor_parallel_size, [float(self._scene.start_s)])
        return self._planner.shape(world, scrapes, goal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One simulation; times count from the first second of the traffic."""

    failed: int
    attainment: float
    attainment_by_prompt_decile: tuple[float | None, ...]
    gpus: float
    asked: tuple[Asked, ...]
    held: tuple[Held, ...]


def simulated(traffic: Traffic, scene: Scene, *, seed: int, later_s: float) -> Outcome:
    """The traffic begins so much later than a look of the planner."""
    later = replace(traffic, arrival_s=traffic.arrival_s + later_s, end_s=traffic.end_s + later_s)
    planner = HandedOver(scene, at_s=scene.by_hand_s + later_s)
    run = simulate(later, scene.setting, planner, first=scene.first, seed=seed)
    attainment = attainment_of(run.outcomes)
    assert attainment is not None

    def since(at_s: float) -> float:
        return round(max(at_s - later_s, 0.0), 1)

    trace = run.gpu_trace
    held = tuple(Held(at_s=since(at_s), gpus=gpus) for at_s, gpus in zip(trace.at_s, trace.gpus, strict=True))
    return Outcome(
        failed=int(run.outcomes.failed.sum()),
        attainment=attainment,
        attainment_by_prompt_decile=attainment_by_decile(run.outcomes),
        gpus=mean_gpus(held, until_s=traffic.end_s),
        asked=tuple(
            Asked(
                at_s=since(at_s),
                tensor_parallel_size=shape.tensor_parallel_size,
                replicas=shape.replicas,
            )
            for at_s, shape in run.asked
        ),
        held=held,
    )


def predict(source: Source, recipe: Recipe, scene: Scene, *, seed: int) -> Prediction:
    """Nobody chooses at which second of its cadence the cluster's planner looks, and a look a few seconds earlier may
    decide otherwise: of one simulation for each second, that with the median of the GPUs."""
    traffic = traffic_of(source, recipe)
    outcomes = [
        simulated(traffic, scene, seed=seed, later_s=later_s) for later_s in range(int(HandedOver.period_s))
    ]
    outcomes.sort(key=lambda one: one.gpus)
    middle = outcomes[len(outcomes) // 2]
    return Prediction(
        source=source.name,
        recipe=recipe,
        fingerprint=fingerprint(traffic),
        scene=scene_of(scene),
        commit=results.commit(),
        seed=seed,
        requests=len(traffic),
        failed=middle.failed,
        attainment=middle.attainment,
        attainment_by_prompt_decile=middle.attainment_by_prompt_decile,
        gpus=middle.gpus,
        gpus_between=(outcomes[0].gpus, outcomes[-1].gpus),
        asked=middle.asked,
        held=middle.held,
    )
