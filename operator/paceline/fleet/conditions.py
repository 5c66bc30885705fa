"""The conditions of a service: what is true of it now, why, and what to do about it.

`lastTransitionTime` is when the status of a condition last changed, so a condition whose status is the same
keeps it, whatever its reason says. What has not been measured is Unknown, never False.
"""

from __future__ import annotations

from collections.abc import Iterator

from paceline.api import Condition, ConditionStatus, ConditionType, InferenceServiceStatus
from paceline.fleet.actions import Event
from paceline.fleet.autoscaling import Word
from paceline.fleet.drain_time import engine_grace_s
from paceline.fleet.in_place import serving_in
from paceline.fleet.outlook import Outlook
from paceline.fleet.roles import RESHAPING, ROLLED_BACK, STARTING, STOPPING, is_active, recreated
from paceline.fleet.situation import INFEASIBLE, REFUSED
from paceline.fleet.timestamps import rfc3339, unix_s
from paceline_core import Layout

_LIMIT = 1024

SCALED_TO_ZERO = "ScaledToZero"
STARTING_FROM_ZERO = "StartingFromZero"


def conditions(
    outlook: Outlook, *, before: InferenceServiceStatus | None
) -> tuple[tuple[Condition, ...], tuple[Event, ...]]:
    """The conditions, and the events for those that are news."""
    made, events = [], []
    for word in _words(outlook):
        old = before.condition(word.type) if before is not None else None
        made.append(_dated(word, old=old, outlook=outlook))
        if (event := _event(word, old=old)) is not None:
            events.append(event)
    return tuple(made), tuple(events)


def _dated(word: Word, *, old: Condition | None, outlook: Outlook) -> Condition:
    unchanged = old is not None and old.status == word.status
    return Condition(
        type=word.type,
        status=word.status,
        observed_generation=outlook.observed.meta.generation,
        last_transition_time=(
            old.last_transition_time if old is not None and unchanged else rfc3339(outlook.observed.now_s)
        ),
        reason=word.reason,
        message=word.message[:_LIMIT],
    )


_WARNINGS: frozenset[tuple[ConditionType, ConditionStatus]] = frozenset(
    {
        ("Feasible", "False"),
        ("ForeignWriter", "True"),
        ("CapacityAvailable", "False"),
        ("MetricsAvailable", "False"),
        ("SLOMet", "False"),
    }
)
_NO_NEWS = frozenset({"NotConfigured"})
"""Of the whole installation, not of a service."""

_WARNING_REASONS = frozenset({"NameTaken", "ReadyDeadlineExceeded", "StartFailed"})


def _event(word: Word, *, old: Condition | None) -> Event | None:
    if old is not None and (old.status, old.reason) == (word.status, word.reason):
        return None
    if word.reason in _NO_NEWS:
        return None
    if (word.type, word.status) in _WARNINGS or word.reason in _WARNING_REASONS:
        if word.type != "Ready":
            return Event(type="Warning", reason=word.reason, message=word.message[:_LIMIT])
        return None
    if word.type == "Ready" and (old.status if old is not None else "False") != word.status:
        if word.status == "True":
            return Event(type="Normal", reason="Ready", message=word.message)
        return Event(type="Warning", reason=word.reason, message=word.message[:_LIMIT])
    return None


def _words(outlook: Outlook) -> Iterator[Word]:
    yield _ready(outlook)
    yield _progressing(outlook)
    yield _model_loaded(outlook)
    yield _router_ready(outlook)
    metrics_available, slo_met, feasible, scaling_active = outlook.autoscaling.words
    yield metrics_available
    yield slo_met
    yield _infeasible(outlook) or feasible
    yield _capacity_available(outlook)
    yield _transitioning(outlook)
    yield _foreign_writer(outlook)
    yield _drain_limited(outlook)
    yield scaling_active


def _ready(outlook: Outlook) -> Word:
    """Whether requests are answered, not whether every replica is there. At zero they are: they are held while the
    first replica starts."""
    serving, asked, refused = outlook.serving_replicas, outlook.asked.replicas, outlook.decision.refused
    if not serving and outlook.taken_names:
        return Word("Ready", "False", "NameTaken", _taken(outlook))
    if not serving and refused is not None:
        return Word("Ready", "False", refused.reason, refused.message)
    from_zero = not asked or _is_waking(outlook)
    if not serving and _is_held(outlook):
        hold_s = outlook.observed.service.spec.transition.max_hold_seconds
        message = f"The only pod changes in place; requests are held for up to {hold_s} s."
        return Word("Ready", "True", "ChangingInPlace", message)
    if not serving and recreated(outlook.decision.transition):
        hold_s = outlook.observed.service.spec.hold_seconds
        message = f"Old pods left before new ones came, by recreate; requests are held for up to {hold_s} s."
        return Word("Ready", "False", "Recreating", message)
    if not serving and not from_zero:
        why = next((why for pod in outlook.starting if (why := pod.why_not_ready) is not None), None)
        message = f"None of {asked} replicas is Ready" + (f": {why}" if why else ".")
        return Word("Ready", "False", "NoReplicaReady", message)
    if not outlook.ready_routers:
        return Word("Ready", "False", "RouterNotReady", "No router pod is Ready.")
    if not serving:
        return _ready_from_zero(outlook)
    if serving < asked:
        return Word("Ready", "True", "SomeReplicasReady", f"{serving} of {asked} replicas are Ready.")
    return Word("Ready", "True", "AllReplicasReady", f"{serving} of {asked} replicas are Ready.")


def _is_held(outlook: Outlook) -> bool:
    """The only pod was told another layout, and is expected back before the first held request is given up."""
    transition = outlook.decision.transition
    return transition is not None and transition.step == RESHAPING and bool(outlook.ready_routers)


def _ready_from_zero(outlook: Outlook) -> Word:
    spec = outlook.observed.service.spec
    if spec.paused:
        message = "The service is at zero, and spec.paused keeps it there: a request is held in vain. Write paused: false"
        return Word("Ready", "False", SCALED_TO_ZERO, message)
    if not outlook.asked.replicas:
        message = (
            "No replica runs, as nobody asked for anything. A request that arrives is held for up to "
            f"{spec.hold_seconds} s and starts one."
        )
        return Word("Ready", "True", SCALED_TO_ZERO, message)
    message = f"The first replica starts; requests are held for up to {spec.hold_seconds} s."
    return Word("Ready", "True", STARTING_FROM_ZERO, message)


def _is_waking(outlook: Outlook) -> bool:
    """It was at zero, and its first replica may still be there before the first held request is given up."""
    before = outlook.observed.status.condition("Ready") if outlook.observed.status is not None else None
    if before is None or before.status != "True" or before.reason not in (SCALED_TO_ZERO, STARTING_FROM_ZERO):
        return False
    if any(pod.verdict is not None for pod in outlook.starting):
        return False
    since_s = [pod.created_at_s for pod in outlook.starting]
    if not since_s:
        # Nothing makes pods out of the new count yet; that it was made a moment ago is told by the decision.
        last = next(iter(outlook.autoscaling.decisions), None)
        if before.reason == SCALED_TO_ZERO or last is None:
            return before.reason == SCALED_TO_ZERO
        since_s = [unix_s(last.at)]
    return outlook.observed.now_s - min(since_s) < outlook.observed.service.spec.hold_seconds


def _progressing(outlook: Outlook) -> Word:
    decision, spec = outlook.decision, outlook.observed.service.spec
    if spec.paused:
        return Word(
            "Progressing", "False", "Paused", "spec.paused is true: nothing is changed until it is false."
        )
    if outlook.taken_names:
        return Word("Progressing", "False", "NameTaken", _taken(outlook))
    if is_active(decision.transition) and decision.transition is not None:
        return Word("Progressing", "True", decision.transition.step, _change(outlook))
    if decision.refused is not None:
        return Word("Progressing", "False", decision.refused.reason, decision.refused.message)
    if decision.waiting is not None:
        return Word("Progressing", "True", "Waiting", f"The next step waits: {decision.waiting}.")
    if outlook.serving_replicas == outlook.due_replicas and not outlook.starting:
        return Word("Progressing", "False", "Settled", "The service is as the spec wants it.")
    deadline_s = spec.transition.ready_deadline_seconds
    for pod in outlook.starting:
        age_s = outlook.observed.now_s - pod.created_at_s
        if age_s > deadline_s:
            message = (
                f"Pod {pod.name} is not Ready after {int(age_s)} s: {pod.why_not_ready or 'no reason given'}"
            )
            return Word("Progressing", "False", "ReadyDeadlineExceeded", message)
    serving, asked = outlook.serving_replicas, outlook.asked.replicas
    return Word("Progressing", "True", "Scaling", f"{serving} of {asked} replicas are Ready.")


def _model_loaded(outlook: Outlook) -> Word:
    if outlook.serving:
        if outlook.observed.service.spec.runtime.emulation is not None or any(
            pod.info is not None and pod.info.emulated for pod in outlook.serving
        ):
            return Word(
                "ModelLoaded", "True", "Emulated", "An emulated engine answers in place of the model."
            )
        return Word("ModelLoaded", "True", "Loaded", "The model is loaded and answers.")
    for pod in outlook.starting:
        if (verdict := pod.verdict) is not None:
            reason = "Refused" if verdict.verdict == "Refused" else "StartFailed"
            where = f"{verdict.field}: " if verdict.field else f"{verdict.stage}: " if verdict.stage else ""
            return Word("ModelLoaded", "False", reason, f"{where}{verdict.message}")
    if outlook.decision.refused is not None and outlook.decision.refused.reason == REFUSED:
        return Word("ModelLoaded", "False", REFUSED, outlook.decision.refused.message)
    if outlook.starting:
        return Word("ModelLoaded", "False", "Loading", "The model is being loaded.")
    return Word("ModelLoaded", "Unknown", "NoPods", "There is no engine pod.")


def _router_ready(outlook: Outlook) -> Word:
    ready, asked = outlook.ready_routers, outlook.observed.service.spec.router.replicas
    message = f"{ready} of {asked} router pods are Ready" + (
        ", and they are being replaced." if outlook.router_rolling else "."
    )
    if not ready:
        return Word("RouterReady", "False", "NoRouterReady", message)
    return Word("RouterReady", "True", "AllReady" if ready >= asked else "SomeReady", message)


def _infeasible(outlook: Outlook) -> Word | None:
    """By the checkpoint's facts, or by the launcher: no latency need be measured for that."""
    refused = outlook.decision.refused
    if refused is not None and refused.reason in (REFUSED, INFEASIBLE):
        named = refused.field and not refused.message.startswith(refused.field)
        message = f"{refused.field}: {refused.message}" if named else refused.message
        return Word("Feasible", "False", refused.reason, message)
    return None


def _capacity_available(outlook: Outlook) -> Word:
    pods = [pod for pod in outlook.engine_pods if not pod.deleting and not pod.finished]
    for pod in pods:
        if pod.unschedulable_since_s is not None:
            message = f"Pod {pod.name} finds no node: {pod.unschedulable_message or 'no reason given'}"
            return Word("CapacityAvailable", "False", "Unschedulable", message)
    if any(pod.scheduling_gated for pod in pods):
        return Word("CapacityAvailable", "Unknown", "SchedulingGated", "A scheduling gate holds back a pod.")
    if any(pod.node is None for pod in pods):
        return Word("CapacityAvailable", "Unknown", "Scheduling", "The scheduler has yet to place a pod.")
    if not pods:
        return Word("CapacityAvailable", "Unknown", "NoPods", "There is no engine pod.")
    return Word("CapacityAvailable", "True", "Scheduled", "Every engine pod has a node.")


def _transitioning(outlook: Outlook) -> Word:
    transition = outlook.decision.transition
    if transition is None:
        return Word("Transitioning", "False", "NoChange", "The engine pods have not been changed.")
    reason = transition.step
    return Word("Transitioning", "True" if is_active(transition) else "False", reason, _change(outlook))


def _change(outlook: Outlook) -> str:
    transition = outlook.decision.transition
    if transition is None:
        return ""
    way = "" if transition.recreate_gpus is None else " by recreate"
    text = f"Change {transition.id}{way} from {transition.from_variant} to {transition.to_variant}: {transition.step}"
    if transition.step in (STARTING, STOPPING):
        coming = outlook.decision.roles.coming
        ready = len(coming.serving) if coming is not None else 0
        return f"{text}, {ready} of {outlook.asked.replicas} new pods are Ready; rolled back at {transition.deadline}."
    if transition.to_layout is not None:
        text = (
            f"Change {transition.id} of the pods of {transition.from_variant} from {transition.from_layout} to "
            f"{transition.to_layout}: {transition.step}"
        )
    if transition.step == RESHAPING and transition.to_layout is not None:
        ready = serving_in(outlook.serving, Layout.parse(transition.to_layout))
        return f"{text}, {ready} pods have changed; rolled back at {transition.deadline}."
    refused = outlook.decision.refused
    if transition.step == ROLLED_BACK and refused is not None:
        return f"{text}. {refused.message}"
    return f"{text}."


def _foreign_writer(outlook: Outlook) -> Word:
    parts = [one.sentence for one in outlook.foreign]
    autoscaled = any(one.autoscaler for one in outlook.foreign)
    if (writer := outlook.ignored_scale_writer) is not None:
        parts.append(
            f"/scale was written by {writer}, and spec.scaling.mode does not follow it: write mode: Manual, or "
            "stop that writer"
        )
    if not parts:
        return Word(
            "ForeignWriter", "False", "NoForeignWriter", "No other manager has changed a field of ours."
        )
    reason = "Autoscaler" if autoscaled else "FieldsHeld" if outlook.foreign else "ScaleNotFollowed"
    return Word("ForeignWriter", "True", reason, "; ".join(parts))


def _drain_limited(outlook: Outlook) -> Word:
    """Paceline's own changes wait for every request. A node that somebody else takes away may not."""
    service, allowed_s = outlook.observed.service, outlook.outer_drain_limit_s
    needed_s = engine_grace_s(service)
    if needed_s <= allowed_s:
        message = f"A pod that leaves has at most {needed_s} s to do, and the cluster gives it {allowed_s} s."
        return Word("DrainLimited", "False", "WithinLimit", message)
    fitting_s = allowed_s - needed_s + service.spec.admission.max_request_seconds
    way_out = f"write spec.admission.maxRequestSeconds: {fitting_s} or less, or " if fitting_s > 0 else ""
    message = (
        f"A pod that leaves may need {needed_s} s for its longest request. When the cluster takes its node away it "
        f"is killed after {allowed_s} s, with the requests that still run: {way_out}raise the cluster's limit and "
        "tell the operator (operator.outerDrainLimitSeconds of the chart)"
    )
    return Word("DrainLimited", "True", "OuterLimitShorter", message)


def _taken(outlook: Outlook) -> str:
    return (
        f"{', '.join(outlook.taken_names)}: an object of this name exists and does not belong to this service; it is "
        "left as it is. Delete or rename it, or rename the service."
    )
