"""Death of the operator at every step of a transition, whatever the step is seen by.

Called by `test_kills.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Protocol

from e2e.kubectl import wait_for
from e2e.scenarios.step_watch import StepWatch
from e2e.scenarios.tenant import Manifest, Tenant, is_leaving, is_ready
from e2e.scenarios.transitions import ASKED, COMING, LEAVING, Kind

STEP_S = 120

LATEST_S = 1.0
"""A kill comes at once when its step is seen, or up to so much later, while what the step allows is being done."""

BURIED = 0.75
"""Of the dead: their Lease is removed, so that the next one leads as soon as it runs, and a hundred kills take less than
an hour. The others' runs out, as in life."""


class Victim(Protocol):
    """An operator that somebody starts again after each death."""

    def running(self) -> Sequence[Manifest]: ...
    def kill(self, pods: Sequence[Manifest], /) -> None: ...
    def bury(self) -> None: ...


class Killer:
    """Kills the operator at every step of a transition."""

    def __init__(self, tenant: Tenant, operator: Victim, watch: StepWatch, *, dice: random.Random) -> None:
        self._tenant = tenant
        self._operator = operator
        self._watch = watch
        self._dice = dice

    def when_asked(self) -> list[str]:
        """It dies right before the change is asked for: who comes after it finds the change there."""
        self._kill(self._victims())
        return [ASKED]

    def at_each_step(self, kind: Kind, *, since: int) -> list[str]:
        """The later steps at which it died. `since`: the watch's mark before the change was asked for; its first step may
        have been written already."""
        killed, dice = list[str](), self._dice
        for step in kind.steps:
            if step == ASKED or step in killed:
                # It was written in the moment before the last kill.
                continue
            # Listed before the moment comes, which may be a short one.
            victims = self._victims()
            self._await(step, since=since)
            if dice.random() < 0.5:
                time.sleep(dice.uniform(0, LATEST_S))
            written = [one.step for one in self._watch.since(since)]
            self._kill(victims)
            killed.append(written[-1] if written else step)
        return killed

    def _victims(self) -> Sequence[Manifest]:
        return wait_for("an operator", lambda: self._operator.running() or None, timeout_s=STEP_S)

    def _kill(self, victims: Sequence[Manifest]) -> None:
        self._operator.kill(victims)
        if self._dice.random() < BURIED:
            self._operator.bury()

    def _await(self, step: str, *, since: int) -> None:
        if step not in (COMING, LEAVING):
            self._watch.until(step, since=since, timeout_s=STEP_S)
            return

        def is_in_it(pod: Manifest) -> bool:
            return is_leaving(pod) if step == LEAVING else not is_leaving(pod) and not is_ready(pod)

        engines = self._tenant.engines
        wait_for(step, lambda: any(map(is_in_it, engines())), timeout_s=STEP_S, every_s=0.2)
