"""What status and conditions say of the closed loop: metrics, SLO, decisions. Made from the loop's advice.

Every look brings new figures, and a service that is well must cost the API server nothing: figures stand in
the status for `REFRESH_S` unless a condition would change, and a decision is written down only when it is
another one. Conditions are worded from what the status holds, so that they change together with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paceline.api import (
    Condition,
    ConditionStatus,
    ConditionType,
    DecisionStatus,
    InferenceServiceStatus,
    Shape,
    SloStatus,
)
from paceline.fleet.actions import Event
from paceline.fleet.advice import METRICS_UNKNOWN, Advice, Choice, Measured
from paceline.fleet.observed import Observed
from paceline.fleet.shape import active_override
from paceline.fleet.situation import INFEASIBLE, REFUSED
from paceline.fleet.timestamps import rfc3339, unix_s

REFRESH_S = 120.0
"""How old figures in the status may be: 1,000 services then write 8 times a second."""

REPEAT_S = 600.0
"""A decision for the same shape by another reason is written down this often at most: a planner may waver
between two reasons to stay."""

KEPT_DECISIONS = 10


@dataclass(frozen=True, slots=True)
class Word:
    """One condition without its times."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What `kubectl get` shows of latency: measured/target."""

    time_to_first_token: str
    time_per_output_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaling:
    slo: SloStatus | None
    decisions: tuple[DecisionStatus, ...]
    columns: Columns
    words: tuple[Word, ...]
    events: tuple[Event, ...]


def autoscaling(observed: Observed, *, asked: Shape) -> Autoscaling:
    """`asked` is the shape of this plan, the advice taken in."""
    before = observed.status or InferenceServiceStatus()
    slo, columns = _figures(observed, before=before)
    decisions = _decisions(observed, before=before)
    events = _news(observed, before=before, asked=asked, decisions=decisions)
    words = (
        _metrics_available(observed, before=before),
        _slo_met(observed, slo=slo),
        _feasible(observed, before=before, decisions=decisions),
        _scaling_active(observed, asked=asked, decisions=decisions),
    )
    return Autoscaling(slo=slo, decisions=decisions, columns=columns, words=words, events=tuple(events))


# figures


def _figures(observed: Observed, *, before: InferenceServiceStatus) -> tuple[SloStatus | None, Columns]:
    advice = observed.advice
    target = observed.service.spec.slo.targets().classes[0]
    ends = (f"/{target.ttft_ms}ms", f"/{target.tpot_ms}ms")
    kept = before.summary
    if (
        kept is not None
        and (kept.time_to_first_token or "").endswith(ends[0])
        and (kept.time_per_output_token or "").endswith(ends[1])
        and not (advice is not None and _is_due(observed, advice, before=before))
    ):
        return before.slo, Columns(
            time_to_first_token=kept.time_to_first_token or "",
            time_per_output_token=kept.time_per_output_token or "",
        )
    measured = advice.measured if advice is not None else Measured()
    columns = Columns(
        time_to_first_token=f"{_ms(measured.time_to_first_token_s)}{ends[0]}",
        time_per_output_token=f"{_ms(measured.time_per_output_token_s)}{ends[1]}",
    )
    if advice is None:
        return before.slo, columns
    return _slo_status(advice), columns


def _slo_status(advice: Advice) -> SloStatus | None:
    measured = advice.measured
    if measured.attainment is None and measured.budget_remaining is None:
        return None
    return SloStatus(
        attainment_percent=_percent(measured.attainment),
        samples=measured.samples,
        budget_remaining_percent=_percent(measured.budget_remaining, digits=0),
        burn_rates=measured.burn_rates,
        as_of=rfc3339(advice.made_at_s),
    )


def _is_due(observed: Observed, advice: Advice, *, before: InferenceServiceStatus) -> bool:
    """Whether the figures of the status are to be those of the advice."""
    available = before.condition("MetricsAvailable")
    if available is None or (available.status == "True") != (advice.metrics.status == "True"):
        return True
    if before.slo is None:
        return _slo_status(advice) is not None
    objective = _objective(observed)
    was, now = _fraction(before.slo.attainment_percent), advice.measured.attainment
    if (was is None) != (now is None) or (
        was is not None and now is not None and (was >= objective) != (now >= objective)
    ):
        return True
    return advice.made_at_s - unix_s(before.slo.as_of) >= REFRESH_S


# decisions


def _decisions(observed: Observed, *, before: InferenceServiceStatus) -> tuple[DecisionStatus, ...]:
    advice = observed.advice
    choice = advice.choice if advice is not None else None
    if advice is None or choice is None or advice.generation != observed.meta.generation:
        return before.decisions
    made = DecisionStatus(
        at=rfc3339(advice.made_at_s),
        mode=observed.service.spec.scaling.mode,
        before=choice.seen,
        shape=choice.shape,
        reason=choice.reason,
        message=choice.message[:400],
        limit=choice.limit,
        predicted_attainment_percent=_percent(choice.predicted_attainment),
    )
    if before.decisions and not _is_another(made, last=before.decisions[0]):
        return before.decisions
    return (made, *before.decisions)[:KEPT_DECISIONS]


def _is_another(made: DecisionStatus, *, last: DecisionStatus) -> bool:
    if unix_s(made.at) <= unix_s(last.at):
        return False
    if (made.shape, made.mode) != (last.shape, last.mode):
        return True
    if (made.reason == METRICS_UNKNOWN) != (last.reason == METRICS_UNKNOWN) or made.limit != last.limit:
        return True
    return made.reason != last.reason and unix_s(made.at) - unix_s(last.at) >= REPEAT_S


def _news(
    observed: Observed,
    *,
    before: InferenceServiceStatus,
    asked: Shape,
    decisions: tuple[DecisionStatus, ...],
) -> Iterator[Event]:
    if not decisions or decisions == before.decisions:
        return
    made = decisions[0]
    if made.before is None or made.shape == made.before:
        return
    if made.mode == "Auto" and asked == made.shape:
        text = f"From {said(made.before)} to {said(made.shape)}: {made.message}"
        yield Event(type="Normal", reason=made.reason, message=text)
    elif made.mode == "Advisory":
        text = f"Would go from {said(made.before)} to {said(made.shape)}: {made.message}"
        yield Event(type="Normal", reason=f"Advised{made.reason}", message=text)


# conditions


def _metrics_available(observed: Observed, *, before: InferenceServiceStatus) -> Word:
    if (advice := observed.advice) is not None:
        word = advice.metrics
        return Word("MetricsAvailable", word.status, word.reason, word.message)
    return _kept("MetricsAvailable", before) or Word(
        "MetricsAvailable", "Unknown", "NotMeasured", "The metrics of the pods have not been read yet."
    )


def _slo_met(observed: Observed, *, slo: SloStatus | None) -> Word:
    attained = _fraction(slo.attainment_percent) if slo is not None else None
    objective = observed.service.spec.slo.objective_percent
    if slo is None or attained is None:
        return Word("SLOMet", "Unknown", "NotMeasured", "The share of good requests is not measured.")
    text = (
        f"{slo.attainment_percent} % of {slo.samples or 0} requests met all their targets at {slo.as_of}; the "
        f"objective is {objective} %."
    )
    if attained >= _objective(observed):
        return Word("SLOMet", "True", "ObjectiveMet", text)
    return Word("SLOMet", "False", "ObjectiveMissed", text)


def _feasible(
    observed: Observed, *, before: InferenceServiceStatus, decisions: tuple[DecisionStatus, ...]
) -> Word:
    choice = _choice(observed)
    kept = _kept("Feasible", before)
    if observed.advice is None and kept is not None and kept.reason not in (REFUSED, INFEASIBLE):
        return kept
    if choice is None or choice.feasible is None:
        return Word(
            "Feasible", "Unknown", "NotMeasured", "Whether the targets can be met is not measured yet."
        )
    if choice.feasible:
        return Word("Feasible", "True", "Feasible", "A shape that is allowed meets the objective.")
    limit = choice.limit or "NoShape"
    # In the words of the decision that is on record: those of each look have other figures, and would be a write each.
    why = decisions[0].message
    return Word(
        "Feasible",
        "False",
        limit,
        f"No shape that is allowed and fits meets the objective (limit: {limit}): {why}",
    )


def _scaling_active(observed: Observed, *, asked: Shape, decisions: tuple[DecisionStatus, ...]) -> Word:
    scaling, override = observed.service.spec.scaling, active_override(observed)
    if override is not None and scaling.override is not None:
        why = f" ({scaling.override.reason})" if scaling.override.reason else ""
        text = f"spec.scaling.override holds {said(override)} until {scaling.override.expires_at}{why}."
        return Word("ScalingActive", "False", "Override", text)
    if scaling.mode == "Manual":
        return Word("ScalingActive", "False", "Manual", "The shape is what spec.scaling says.")
    if not asked.replicas:
        return _asleep(observed, asked=asked)
    if observed.advice is not None and observed.advice.hindrance is not None:
        text = f"The service holds {said(asked)}: {observed.advice.hindrance}"
        return Word("ScalingActive", "False", "Hindered", text)
    hold = f"mode: Manual, replicas: {asked.replicas}, tensorParallelSize: {asked.tensor_parallel_size}"
    last = next((one for one in decisions if one.mode == scaling.mode), None)
    if last is None:
        text = f"The planner has decided nothing yet: the service holds {said(asked)}."
        return Word("ScalingActive", "False", "NotDriven", text)
    if scaling.mode == "Advisory":
        text = (
            f"The service holds {said(asked)}; the planner would take {said(last.shape)} ({last.reason}). To "
            f"let it, write mode: Auto. To change it yourself, write {hold}."
        )
        return Word("ScalingActive", "False", "Advisory", text)
    text = f"The planner holds {said(asked)} ({last.reason}). To keep this shape, write {hold}."
    if observed.advice is not None and observed.advice.kept_awake is not None:
        text += f" It does not go to zero: {observed.advice.kept_awake}"
    return Word("ScalingActive", "True", "Auto", text)


def _asleep(observed: Observed, *, asked: Shape) -> Word:
    hindrance = observed.advice.hindrance if observed.advice is not None else None
    if hindrance is not None:
        return Word("ScalingActive", "False", "Hindered", f"The service stays at zero: {hindrance}")
    text = (
        f"The service is at zero and wakes with TP{asked.tensor_parallel_size}. To keep a replica at all times, "
        "write replicaBounds.min: 1."
    )
    return Word("ScalingActive", "True", "ScaledToZero", text)


def _kept(kind: ConditionType, before: InferenceServiceStatus) -> Word | None:
    """An operator that has just started knows no better than what stands there."""
    old: Condition | None = before.condition(kind)
    return Word(kind, old.status, old.reason, old.message) if old is not None else None


def _choice(observed: Observed) -> Choice | None:
    return observed.advice.choice if observed.advice is not None else None


def said(shape: Shape) -> str:
    return f"{shape.replicas}×TP{shape.tensor_parallel_size}"


def _objective(observed: Observed) -> float:
    return float(observed.service.spec.slo.objective_percent) / 100


def _percent(share: float | None, *, digits: int = 2) -> str | None:
    return f"{share * 100:.{digits}f}" if share is not None else None


def _fraction(percent: str | None) -> float | None:
    return float(percent) / 100 if percent is not None else None


def _ms(seconds: float | None) -> str:
    return f"{seconds * 1000:.0f}" if seconds is not None else "-"
