"""The shape that is asked for: (tensor-parallel size, replicas).

In Manual it is what the spec says. In Auto and Advisory it lives in the status, so that an edit of the spec
never resets it, and nothing differs from what a GitOps tool applies; the spec only gives the first start.
"""

from __future__ import annotations

from paceline.api import Shape
from paceline.fleet.observed import Observed
from paceline.fleet.variant import Variant


def desired_shape(observed: Observed, variants: tuple[Variant, ...]) -> Shape:
    scaling = observed.service.spec.scaling
    asked = Shape(tensor_parallel_size=scaling.tensor_parallel_size, replicas=scaling.replicas)
    if scaling.mode == "Manual":
        return asked
    held = _held_shape(observed, variants) or asked
    bounds = scaling.replica_bounds
    if bounds is None:
        return held
    replicas = min(max(held.replicas, bounds.min), bounds.max)
    return Shape(tensor_parallel_size=held.tensor_parallel_size, replicas=replicas)


def _held_shape(observed: Observed, variants: tuple[Variant, ...]) -> Shape | None:
    """None until the service has served: a first start that fails must be mendable by an edit of the spec."""
    shapes = observed.status.shape if observed.status is not None else None
    served = [one for one in variants if one.has_served]
    if shapes is not None and shapes.desired is not None and (served or shapes.last_safe is not None):
        return shapes.desired
    if not served:
        return None
    # The status was lost; the Deployments still know.
    best = max(served, key=lambda one: (len(one.serving), one.created_at_s))
    return Shape(tensor_parallel_size=best.tensor_parallel_size, replicas=best.asked_replicas)
