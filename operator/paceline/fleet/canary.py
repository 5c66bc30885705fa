"""What engines that come are held against: the answers of those that serve.

The launcher of each pod measures a canary and tells it (`/paceline/info`). The first that was told stays the reference as
long as pods serve that it can be compared with, so that small differences do not add up over many changes. Pure.
"""

from __future__ import annotations

from paceline.fleet.names import Names
from paceline.fleet.observed import Observed
from paceline_core import Canary, CanaryError

KEY = "canary.json"
"""In the ConfigMap of the targets, which every engine pod mounts."""


def reference(observed: Observed) -> Canary | None:
    """None: nothing has been served yet, or nothing is to be compared."""
    if observed.service.spec.transition.canary.mode == "Disabled":
        return None
    kept = _kept(observed)
    told = [
        pod.info.canary
        for pod in sorted(observed.pods, key=lambda one: one.name)
        if pod.component == "engine" and pod.serving and pod.info is not None and pod.info.canary is not None
    ]
    if kept is not None and (not told or any(one.of == kept.of for one in told)):
        return kept
    return told[0] if told else None


def _kept(observed: Observed) -> Canary | None:
    config = observed.children.get(("ConfigMap", Names(observed.meta.name).slo))
    text = (config or {}).get("data", {}).get(KEY)
    try:
        return None if text is None else Canary.parse(text)
    except CanaryError:
        return None
