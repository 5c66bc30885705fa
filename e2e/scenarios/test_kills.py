"""A campaign: the operator killed (SIGKILL) at each step of each kind of transition, a hundred times in all.

Every transition ends as one does in which nobody died: the same objects and none more, no second transition, no step
twice, no request lost. Engines are emulated, everything else is real.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from e2e import results
from e2e.kubectl import NotReached, wait_for
from e2e.load import Load
from e2e.scenarios.campaign import STEP_MS, Session, Stage, on_stage, shapes
from e2e.scenarios.end_state import end_state
from e2e.scenarios.step_watch import StepWatch
from e2e.scenarios.tenant import Manifest, Operator, Tenant, is_leaving, is_ready
from e2e.scenarios.transitions import ASKED, COMING, KINDS, LEAVING, Kind

pytestmark = pytest.mark.campaign

KILLS = 100
RATE_PER_S = 5.0
STREAMS_AT_LEAST = 3
STEP_S = 120
CONVERGED_S = 60

LATEST_S = 1.0
"""A kill comes at once when its step is seen, or up to so much later, while what the step allows is being done."""

BURIED = 0.75
"""Of the dead: their Lease is removed, so that the next one leads as soon as it runs, and a hundred kills take less than
an hour. The others' runs out, as in life."""


class Progress:
    """What is still missing, over all sessions; and how a transition ends in which nobody dies, at this commit."""

    def __init__(self) -> None:
        self._kills = Counter[tuple[str, str]]()
        self._ends = dict[tuple[str, str], list[str]]()
        commit = results.commit()
        for line in results.lines("kills"):
            self.count(line["kind"], line["kills"])
            if line["commit"] == commit and not line["kills"]:
                self._ends[line["kind"], line["shapes"]] = line["end"]

    def count(self, kind: str, kills: list[str]) -> None:
        self._kills.update((kind, step) for step in kills)

    def draw(self, stage: Stage) -> Kind | None:
        """The kind that was killed least at one of its steps, of those that may begin from here; None at the end."""
        if self._kills.total() >= KILLS and all(map(self._least, KINDS)):
            return None
        possible = [kind for kind in KINDS if stage.shape in kind.ends]
        return min(possible, key=lambda kind: (self._least(kind), stage.dice.random()))

    def end(self, kind: Kind, stage: Stage) -> list[str] | None:
        return self._ends.get((kind.name, shapes(stage.shape, kind.ends[stage.shape])))

    def learn(self, kind: Kind, *, shapes: str, end: list[str]) -> None:
        self._ends[kind.name, shapes] = end

    def _least(self, kind: Kind) -> int:
        return min(self._kills[kind.name, step] for step in kind.steps)


class Killer:
    """Kills the operator at every step of a transition."""

    def __init__(self, stage: Stage, operator: Operator, watch: StepWatch) -> None:
        self._stage = stage
        self._operator = operator
        self._watch = watch

    def at_each_step(self, kind: Kind) -> list[str]:
        """The steps at which it died."""
        mark, killed, dice = self._watch.mark(), list[str](), self._stage.dice
        for step in kind.steps:
            if step in killed:
                # It was written in the moment before the last kill.
                continue
            # Listed before the moment comes, which may be a short one.
            victims = wait_for("an operator", lambda: self._operator.pods() or None, timeout_s=STEP_S)
            self._await(step, since=mark)
            if dice.random() < 0.5:
                time.sleep(dice.uniform(0, LATEST_S))
            written = [one.step for one in self._watch.since(mark)]
            self._operator.kill(victims)
            killed.append(written[-1] if written else step)
            if dice.random() < BURIED:
                self._operator.bury()
        return killed

    def _await(self, step: str, *, since: int) -> None:
        if step == ASKED:
            return
        if step not in (COMING, LEAVING):
            self._watch.until(step, since=since, timeout_s=STEP_S)
            return

        def is_in_it(pod: Manifest) -> bool:
            return is_leaving(pod) if step == LEAVING else not is_leaving(pod) and not is_ready(pod)

        engines = self._stage.tenant.engines
        wait_for(step, lambda: any(map(is_in_it, engines())), timeout_s=STEP_S, every_s=0.2)


def test_a_killed_operator_changes_nothing_of_how_a_transition_ends(
    tenant: Tenant,
    operator: Operator,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
) -> None:
    session, progress = Session(), Progress()
    seed = len(results.lines("kills"))
    load = Load(
        rate_per_s=RATE_PER_S, max_tokens=(800 // STEP_MS, 4800 // STEP_MS), ignore_eos=True, seed=seed
    )
    stage = Stage(
        tenant,
        manifest=on_stage(emulated(replicas=1), name=tenant.name),
        load=load,
        seed=seed,
        append=record_scenario,
    )
    wrong: list[Any] = []
    with stage.running(), StepWatch(tenant) as watch:
        killer = Killer(stage, operator, watch)
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

    def meanwhile() -> None:
        if expected is not None:
            killed.extend(killer.at_each_step(kind))

    stage.play(kind, meanwhile=meanwhile)
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


def difference(tenant: Tenant, *, expected: list[str]) -> list[str]:
    """What there is and should not be, or the other way round, once it had time to converge."""
    try:
        wait_for("the same end", lambda: end_state(tenant) == expected, timeout_s=CONVERGED_S, every_s=2)
    except NotReached:
        return sorted(set(end_state(tenant)) ^ set(expected))
    return []
