"""A campaign: the operator killed (SIGKILL) at each step of each kind of transition, a hundred times in all.

Every transition ends as one does in which nobody died: the same objects and none more, no second transition, no step
twice, no request lost. Engines are emulated, everything else is real.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from e2e import results
from e2e.load import Load
from e2e.scenarios import rival
from e2e.scenarios.campaign import STEP_MS, Session, Stage, shapes
from e2e.scenarios.end_state import difference, end_state
from e2e.scenarios.killer import Killer
from e2e.scenarios.step_watch import StepWatch
from e2e.scenarios.tenant import Manifest, Operator, Tenant
from e2e.scenarios.transitions import BESIDE, FAMILIES, WITHIN, Family, Kind

pytestmark = pytest.mark.campaign

KILLS = {BESIDE.name: 80, WITHIN.name: 20}
"""By the family: a hundred in all."""

RATE_PER_S = 5.0
STREAMS_AT_LEAST = 3


class Progress:
    """What is still missing, over all sessions; and how a transition ends in which nobody dies, in this one: the names of
    ReplicaSets hang on the namespace."""

    def __init__(self) -> None:
        self._kills = Counter[tuple[str, str]]()
        self._ends = dict[tuple[str, str], list[str]]()
        for line in results.lines("kills"):
            self.count(line["kind"], line["kills"])

    def count(self, kind: str, kills: list[str]) -> None:
        self._kills.update((kind, step) for step in kills)

    def draw(self, stage: Stage) -> Kind | None:
        """The kind that was killed least at one of its steps, of those that may begin from here; None at the end."""
        kinds = stage.family.kinds
        if sum(map(self._of, kinds)) >= KILLS[stage.family.name] and all(map(self._least, kinds)):
            return None
        possible = [kind for kind in kinds if stage.shape in kind.ends]
        return min(possible, key=lambda kind: (self._least(kind), stage.dice.random()))

    def end(self, kind: Kind, stage: Stage) -> list[str] | None:
        return self._ends.get((kind.name, shapes(stage.shape, kind.ends[stage.shape])))

    def learn(self, kind: Kind, *, shapes: str, end: list[str]) -> None:
        self._ends[kind.name, shapes] = end

    def _of(self, kind: Kind) -> int:
        return sum(count for (name, _), count in self._kills.items() if name == kind.name)

    def _least(self, kind: Kind) -> int:
        return min(self._kills[kind.name, step] for step in kind.steps)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_killed_operator_changes_nothing_of_how_a_transition_ends(
    tenant: Tenant,
    operator: Operator,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
    family: Family,
) -> None:
    session, progress = Session(), Progress()
    seed = len(results.lines("kills"))
    load = Load(
        rate_per_s=RATE_PER_S, max_tokens=(800 // STEP_MS, 4800 // STEP_MS), ignore_eos=True, seed=seed
    )
    stage = Stage(
        tenant,
        family=family,
        manifest=emulated(replicas=family.first.replicas),
        load=load,
        seed=seed,
        append=record_scenario,
    )
    wrong: list[Any] = []
    with stage.running(), StepWatch(tenant) as watch:
        if family is WITHIN:
            rival.holds_gpus(tenant, gpus=4)
        killer = Killer(tenant, operator, watch, dice=stage.dice)
        while not session.is_over and (kind := progress.draw(stage)) is not None:
            stage.await_streams(STREAMS_AT_LEAST)
            seen = play(kind, stage=stage, killer=killer, watch=watch, progress=progress)
            stage.note(**seen)
            if (
                not seen["same_end"]
                or seen["second_transitions"]
                or seen["steps"] != list(kind.written_steps)
            ):
                wrong.append(seen)
    assert wrong == []
    assert stage.failed == 0


def play(kind: Kind, *, stage: Stage, killer: Killer, watch: StepWatch, progress: Progress) -> dict[str, Any]:
    """One transition, with kills where it is known how it ends without them; and what was seen of its end."""
    before, expected, mark, killed = stage.shape, progress.end(kind, stage), watch.mark(), list[str]()

    def first() -> None:
        if expected is not None:
            killed.extend(killer.when_asked())

    def meanwhile() -> None:
        if expected is not None:
            killed.extend(killer.at_each_step(kind, since=mark))

    stage.play(kind, first=first, meanwhile=meanwhile)
    written = watch.since(mark)
    seen = {
        "kills": killed,
        "steps": [one.step for one in written],
        "second_transitions": len({one.id for one in written}) - bool(kind.written_steps),
    }
    if expected is None:
        end = end_state(stage.tenant)
        progress.learn(kind, shapes=shapes(before, stage.shape), end=end)
        return {**seen, "same_end": True, "end": end}
    progress.count(kind.name, killed)
    differs = difference(stage.tenant, expected=expected)
    return {**seen, "same_end": not differs, "differs": differs}
