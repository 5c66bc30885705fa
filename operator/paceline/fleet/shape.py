"""The shape that is asked for: (tensor-parallel size, replicas), and who asks.

    an override that has not expired      its shape, in every mode
    Manual                                what the spec says
    Auto                                  the shape in the status, moved by the planner's advice
    Advisory                              the shape in the status

Zero replicas is a shape like any other, and only Auto may have it: the tensor-parallel size in it is the one that
the service wakes with. In Auto and Advisory the shape lives in the status, so that an edit of the spec never
resets it, and nothing differs from what a GitOps tool applies; the spec only gives the first start.
"""

from __future__ import annotations

from paceline.api import Refused, Shape
from paceline.fleet.advice import METRICS_UNKNOWN, Advice, Choice
from paceline.fleet.observed import Observed
from paceline.fleet.roles import is_active
from paceline.fleet.timestamps import unix_s
from paceline.fleet.variant import Variant


def desired_shape(observed: Observed, variants: tuple[Variant, ...]) -> Shape:
    scaling = observed.service.spec.scaling
    if (override := active_override(observed)) is not None:
        return override
    asked = Shape(tensor_parallel_size=scaling.tensor_parallel_size, replicas=scaling.replicas)
    if scaling.mode == "Manual":
        return asked
    held = _held_shape(observed, variants) or asked
    if (advised := _advised(observed, held=held)) is not None:
        held = advised
    replicas = max(held.replicas, scaling.least_replicas)
    if scaling.replica_bounds is not None:
        replicas = min(replicas, scaling.replica_bounds.max)
    return Shape(tensor_parallel_size=held.tensor_parallel_size, replicas=replicas)


def standing_shape(observed: Observed, variants: tuple[Variant, ...]) -> Shape | None:
    """What Auto and Advisory start from; None until the service has served."""
    return active_override(observed) or _held_shape(observed, variants)


def active_override(observed: Observed) -> Shape | None:
    override = observed.service.spec.scaling.override
    if override is None or unix_s(override.expires_at) <= observed.now_s:
        return None
    return Shape(tensor_parallel_size=override.tensor_parallel_size, replicas=override.replicas)


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
    return Shape(
        tensor_parallel_size=best.tensor_parallel_size,
        replicas=best.asked_replicas * best.layout.data_parallel_size,
    )


def binding_refusal(observed: Observed) -> Refused | None:
    """A refusal holds until the spec changes."""
    refused = observed.status.refused if observed.status is not None else None
    return refused if refused is not None and refused.generation == observed.meta.generation else None


def refused_now(observed: Observed) -> tuple[Shape, ...]:
    """Shapes that failed, and whose time is not over."""
    found = observed.status.refused_shapes if observed.status is not None else ()
    return tuple(
        Shape(tensor_parallel_size=one.tensor_parallel_size, replicas=one.replicas)
        for one in found
        if unix_s(one.until) > observed.now_s
    )


def _advised(observed: Observed, *, held: Shape) -> Shape | None:
    """The planner's shape, if nothing speaks against following it now."""
    advice, choice = _valid(observed)
    if advice is None or choice is None or choice.seen != held:
        # About a shape that has been left since.
        return None
    if held.replicas == 0:
        # It wakes on the word of its own gates, whatever is known of metrics and of shapes that failed.
        return choice.shape
    if not advice.metrics.usable or choice.reason == METRICS_UNKNOWN:
        return None
    least = observed.service.spec.scaling.least_replicas
    if choice.shape in refused_now(observed) or choice.shape.replicas < least:
        return None
    if choice.shape.tensor_parallel_size != held.tensor_parallel_size:
        transition = observed.status.transition if observed.status is not None else None
        if is_active(transition) or binding_refusal(observed) is not None:
            return None
    return choice.shape


def is_advised_in_place(observed: Observed, asked: Shape) -> bool:
    """Whether the shape that is asked for is one that the planner would have the present pods change to."""
    _, choice = _valid(observed)
    return choice is not None and choice.in_place and choice.shape == asked


def _valid(observed: Observed) -> tuple[Advice | None, Choice | None]:
    """An advice that may be followed."""
    spec, advice = observed.service.spec, observed.advice
    if advice is None or spec.scaling.mode != "Auto" or spec.paused:
        return None, None
    if not advice.is_valid(generation=observed.meta.generation, now_s=observed.now_s):
        return None, None
    return advice, advice.choice
