"""What engines that come are held against: the answers and the speed of those that serve.

The launcher of each pod measures a canary and tells it (`/paceline/info`). The first that was told stays the reference as
long as pods serve that it can be compared with, so that small differences do not add up over many changes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paceline.fleet.names import Names
from paceline.fleet.observed import Observed
from paceline.fleet.timing_prior import timing_prior
from paceline_core import CanaryError, Reference, Speed

KEY = "canary.json"
"""In the ConfigMap of the targets, which every engine pod mounts."""


def reference(observed: Observed) -> Reference | None:
    """None: nothing has been served yet, or nothing is to be compared."""
    check = observed.service.spec.transition.canary
    if check.mode == "Disabled":
        return None
    margin = check.latency_margin_percent / 100
    kept = _kept(observed)
    told = [
        pod.info.canary
        for pod in sorted(observed.pods, key=lambda one: one.name)
        if pod.component == "engine" and pod.serving and pod.info is not None and pod.info.canary is not None
    ]
    if kept is not None and (not told or any(one.of == kept.canary.of for one in told)):
        return replace(kept, margin=margin)
    if not told:
        return None
    return Reference(
        canary=told[0], expected_token_s=_expected_token_s(observed, told[0].speed), margin=margin
    )


def _expected_token_s(observed: Observed, speed: Speed | None) -> Mapping[int, float]:
    """By tensor-parallel size: as fast as the one that was measured, times what lies between the two by the tables.

    On a CPU nothing is expected: what shares the cores says more about the speed than the engine does.
    """
    if speed is None or observed.service.spec.accelerator.is_cpu:
        return {}
    prior = timing_prior(observed)
    alone_s = {} if prior is None else {size: one.step_s(decodes=1) for size, one in prior.timing.items()}
    if (known_s := alone_s.get(speed.tensor_parallel_size)) is None:
        return {speed.tensor_parallel_size: speed.token_s}
    return {size: round(speed.token_s * each_s / known_s, 6) for size, each_s in alone_s.items()}


def _kept(observed: Observed) -> Reference | None:
    config = observed.children.get(("ConfigMap", Names(observed.meta.name).slo))
    text = (config or {}).get("data", {}).get(KEY)
    try:
        return None if text is None else Reference.parse(text)
    except CanaryError:
        return None
