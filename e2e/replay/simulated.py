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
from paceline.simulator.simulation import Run, simulate
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


@dataclass(frozen=True, slots=True)
class Simulated:
    """A run of the traffic that began so much later than a look of the planner; times count from its first second."""

    run: Run
    later_s: float
    until_s: float

    @property
    def held(self) -> tuple[Held, ...]:
        trace = self.run.gpu_trace
        return tuple(
            Held(at_s=self._since(at_s), gpus=gpus) for at_s, gpus in zip(trace.at_s, trace.gpus, strict=True)
        )

    @property
    def gpus(self) -> float:
        return mean_gpus(self.held, until_s=self.until_s)

    @property
    def asked(self) -> tuple[Asked, ...]:
        return tuple(
            Asked(
                at_s=self._since(at_s),
                tensor_parallel_size=shape.tensor_parallel_size,
                replicas=shape.replicas,
            )
            for at_s, shape in self.run.asked
        )

    def _since(self, at_s: float) -> float:
        return round(max(at_s - self.later_s, 0.0), 1)


def simulated(traffic: Traffic, scene: Scene, *, seed: int, later_s: float) -> Simulated:
    later = replace(traffic, arrival_s=traffic.arrival_s + later_s, end_s=traffic.end_s + later_s)
    planner = HandedOver(scene, at_s=scene.by_hand_s + later_s)
    run = simulate(later, scene.setting, planner, first=scene.first, seed=seed)
    return Simulated(run, later_s, until_s=traffic.end_s)


def predict(source: Source, recipe: Recipe, scene: Scene, *, seed: int) -> Prediction:
    """Nobody chooses at which second of its cadence the cluster's planner looks, and a look a few seconds earlier may
    decide otherwise: of one simulation for each second, that with the median of the GPUs."""
    traffic = traffic_of(source, recipe)
    seconds = range(int(HandedOver.period_s))
    found = [simulated(traffic, scene, seed=seed, later_s=later_s) for later_s in seconds]
    found.sort(key=lambda one: one.gpus)
    least, middle, most = found[0], found[len(found) // 2], found[-1]
    outcomes = middle.run.outcomes
    attainment = attainment_of(outcomes)
    assert attainment is not None
    return Prediction(
        source=source.name,
        recipe=recipe,
        fingerprint=fingerprint(traffic),
        scene=scene_of(scene),
        commit=results.commit(),
        seed=seed,
        requests=len(traffic),
        failed=int(outcomes.failed.sum()),
        attainment=attainment,
        attainment_by_prompt_decile=attainment_by_decile(outcomes),
        gpus=middle.gpus,
        gpus_between=(least.gpus, most.gpus),
        asked=middle.asked,
        held=middle.held,
    )
