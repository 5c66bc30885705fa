"""The whole of fleet in one call: observed cluster in, next actions and status out; called by the controller.

The order of thought: what shape is asked for; which variant has it; what the next safe step of the engines
is (`transition`); what every object should look like; which of their fields others hold (`foreign`); what
to say of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paceline.api import InferenceServiceStatus, Refused, Shape
from paceline.fleet import recreate
from paceline.fleet.actions import Apply, Delete, Event, Plan
from paceline.fleet.autoscaling import autoscaling, said
from paceline.fleet.canary import reference
from paceline.fleet.conditions import conditions
from paceline.fleet.engine_deployment import existing_deployment, new_deployment
from paceline.fleet.feasibility import model_uri_to_serve, refusal_before_start
from paceline.fleet.foreign import REPLICAS, Claim, claim, ignored_scale_writer, replicas_holder
from paceline.fleet.in_place import Terms, told_variants, wanted_layout
from paceline.fleet.manifests import (
    AFTER_ENGINES,
    BEFORE_ENGINES,
    ENGINES,
    Manifest,
    prerequisites,
    surroundings,
    unwanted,
)
from paceline.fleet.names import Names
from paceline.fleet.observed import CHILD_KINDS, Observed, RawObject
from paceline.fleet.outlook import Outlook
from paceline.fleet.ownership import is_deleting, is_owned
from paceline.fleet.replacement import replacement
from paceline.fleet.replicas import ROUTED_AFTER_S, Surroundings
from paceline.fleet.roles import RESHAPING, STARTING, assign_roles, recreated
from paceline.fleet.router_deployment import is_rolling, ready_routers, router_deployment
from paceline.fleet.setback import Setback, setback
from paceline.fleet.settings import Settings
from paceline.fleet.shape import binding_refusal, desired_shape, is_advised_in_place
from paceline.fleet.situation import INFEASIBLE, Decision, Situation
from paceline.fleet.status import service_status
from paceline.fleet.timestamps import unix_s
from paceline.fleet.transition import decide
from paceline.fleet.variant import Inputs, find_by_inputs, template_inputs, variant_name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One service under one plan."""

    observed: Observed
    settings: Settings
    inputs: Inputs
    situation: Situation
    decision: Decision

    @property
    def is_asked_anew(self) -> bool:
        """The planner's advice moved the shape: the status must know before an engine does, or the next
        operator would take it back."""
        mode, shapes = self.observed.service.spec.scaling.mode, self.observed.status
        before = shapes.shape.desired if shapes is not None and shapes.shape is not None else None
        return mode != "Manual" and before is not None and before != self.situation.asked

    @property
    def router(self) -> RawObject | None:
        return _own(self.observed, "Deployment", Names(self.observed.meta.name).router)


def plan(observed: Observed, *, settings: Settings) -> Plan:
    """The next actions for one service; the same input always gives the same plan."""
    if observed.meta.deleting:
        return Plan(status=observed.status or InferenceServiceStatus())
    case = _case(observed, settings=settings)
    claims, taken = _claims(case)
    idle = observed.service.spec.paused or _is_refused_before_anything(case)
    said_of_scaling = autoscaling(observed, asked=case.situation.asked)
    slow = replacement(observed, situation=case.situation, decision=case.decision)
    outlook = Outlook(
        observed=observed,
        asked=case.situation.asked,
        autoscaling=said_of_scaling,
        decision=case.decision,
        variants=case.situation.variants,
        foreign=tuple(one for found in claims for one in found.claim.foreign),
        taken_names=() if idle else taken,
        ready_routers=ready_routers(case.router),
        router_rolling=case.situation.around.router_rolling,
        outer_drain_limit_s=settings.outer_drain_limit_s,
        ignored_scale_writer=ignored_scale_writer(observed.meta.managed_fields)
        if observed.service.spec.scaling.mode != "Manual"
        and observed.service.spec.scaling.replicas != case.situation.asked.replicas
        else None,
        last_straggler=slow.status,
    )
    said, news = conditions(outlook, before=observed.status)
    news_of_shape = setback(observed, situation=case.situation, decision=case.decision)
    status = service_status(outlook, conditions=said, news=news_of_shape)
    requeue_after_s = _next_deadline_s(case, outlook)
    if idle:
        return Plan(status=status, events=news, requeue_after_s=requeue_after_s)
    return Plan(
        apply=tuple(found.apply for found in claims),
        reshape=case.decision.reshape,
        delete=(*_removals(case), *_unwanted(case), *slow.delete),
        status=status,
        events=(
            *said_of_scaling.events,
            *case.decision.events,
            *_scaled(case, claims),
            *_given_up(news_of_shape),
            *_reclaimed(claims),
            *slow.events,
            *news,
        ),
        requeue_after_s=requeue_after_s,
    )


def _case(observed: Observed, *, settings: Settings) -> _Case:
    service, meta = observed.service, observed.meta
    transition = observed.status.transition if observed.status is not None else None
    variants = told_variants(observed)
    asked = desired_shape(observed, variants)
    inputs = template_inputs(service, tensor_parallel_size=asked.tensor_parallel_size)
    known = find_by_inputs(variants, inputs)
    router = router_deployment(service, meta=meta, settings=settings)
    live_router = _own(observed, "Deployment", Names(meta.name).router)
    situation = Situation(
        now_s=observed.now_s,
        generation=meta.generation,
        variants=variants,
        target=known.name
        if known is not None
        else variant_name(inputs, taken=(one.name for one in variants if one.inputs is not None)),
        asked=asked,
        transition=transition,
        refused=_refusal(observed),
        refusal=refusal_before_start(observed, tensor_parallel_size=asked.tensor_parallel_size),
        inputs=inputs,
        no_room_beside=is_advised_in_place(observed, asked),
        ready_deadline_s=service.spec.transition.ready_deadline_seconds,
        pending_deadline_s=service.spec.transition.pending_deadline_seconds,
        in_place=Terms(
            enabled=service.spec.transition.in_place == "Enabled",
            max_hold_s=service.spec.transition.max_hold_seconds,
            max_request_s=service.spec.admission.max_request_seconds,
            ready_deadline_s=service.spec.transition.ready_deadline_seconds,
        ),
        recreate=recreate.terms(observed, tensor_parallel_size=asked.tensor_parallel_size),
        around=Surroundings(
            leaving_nodes=_leaving_nodes(observed),
            router_rolling=is_rolling(live_router, wanted=router),
            held_replicas=frozenset(
                one.name for one in variants if replicas_holder(one.deployment) is not None
            ),
            max_unavailable=service.spec.disruption.max_unavailable,
        ),
    )
    decision = _paused(situation) if service.spec.paused else decide(situation)
    return _Case(observed=observed, settings=settings, inputs=inputs, situation=situation, decision=decision)


def _leaving_nodes(observed: Observed) -> frozenset[str]:
    """Of those that the service's pods are on."""
    mine = {pod.node for pod in observed.pods}
    return frozenset(node.name for node in observed.nodes if node.name in mine and node.leaving)


def _refusal(observed: Observed) -> Refused | None:
    """One that came from facts is judged again as long as there are facts: a larger GPU may have joined."""
    refused = binding_refusal(observed)
    if refused is None:
        return None
    return None if refused.reason == INFEASIBLE and observed.facts is not None else refused


def _paused(situation: Situation) -> Decision:
    """Everything as it is; only the status goes on telling what is seen."""
    return Decision(
        transition=situation.transition,
        refused=situation.refused,
        roles=assign_roles(
            situation.variants,
            transition=situation.transition,
            target=situation.target,
            asked_replicas=situation.target_pods,
        ),
        replicas={one.name: one.replicas for one in situation.variants},
    )


def _is_refused_before_anything(case: _Case) -> bool:
    """Nothing of a service that cannot be served is made. Once something is, it is kept in order."""
    observed, decision = case.observed, case.decision
    if decision.refused is None or any(decision.replicas.values()):
        return False
    return not any(is_owned(child, by=observed.meta) for child in observed.children.values())


# what to apply


@dataclass(frozen=True, slots=True)
class _Claimed:
    claim: Claim
    apply: Apply


def _claims(case: _Case) -> tuple[tuple[_Claimed, ...], tuple[str, ...]]:
    """An apply for every object that may be applied, and the names that are taken by objects of others."""
    observed, claims, taken = case.observed, [], []
    for manifest, priority, marks in _wanted(case):
        kind, name = str(manifest["kind"]), str(manifest["metadata"]["name"])
        live = observed.children.get((kind, name))
        if live is None:
            claims.append(
                _Claimed(
                    claim=Claim(object=manifest, force=False, foreign=(), reclaimed=()),
                    apply=Apply(object=manifest, priority=priority, must_be_absent=True, **marks),
                )
            )
        elif not is_owned(live, by=observed.meta):
            taken.append(f"{kind} {name}")
        elif not is_deleting(live):
            claims.append(_claimed(case, manifest, live=live, priority=priority, marks=marks))
    return tuple(claims), tuple(taken)


def _claimed(
    case: _Case, manifest: Manifest, *, live: RawObject, priority: int, marks: Mapping[str, Any]
) -> _Claimed:
    observed = case.observed
    found = claim(
        manifest,
        live=live,
        conflicts=tuple(
            one
            for one in observed.conflicts
            if (one.kind, one.name) == (manifest["kind"], manifest["metadata"]["name"])
        ),
        annotations=observed.meta.annotations,
        told=_condition_message(observed.status, "ForeignWriter"),
        now_s=observed.now_s,
        grace_s=case.settings.foreign_writer_grace_s,
    )
    if any(one.path == REPLICAS and one not in found.reclaimed for one in found.foreign):
        # What is left of this apply changes no count, so nothing of a transition hangs on it.
        marks = {}
    apply = Apply(
        object=found.object,
        priority=priority,
        force=found.force,
        uid=str(live["metadata"]["uid"]),
        **marks,
    )
    return _Claimed(claim=found, apply=apply)


def _wanted(case: _Case) -> Iterator[tuple[Manifest, int, Mapping[str, Any]]]:
    """(object, priority, further fields of its Apply), in order."""
    observed, settings = case.observed, case.settings
    service, meta = observed.service, observed.meta
    for manifest in prerequisites(service, meta=meta, canary=reference(observed)):
        yield manifest, BEFORE_ENGINES, {}
    yield from _engines(case)
    for manifest in surroundings(service, meta=meta, settings=settings):
        yield manifest, AFTER_ENGINES, {}


def _engines(case: _Case) -> Iterator[tuple[Manifest, int, Mapping[str, Any]]]:
    """A variant that comes is applied before any other is lowered."""
    observed, situation, decision = case.observed, case.situation, case.decision
    target, meta = situation.target, observed.meta
    if situation.find(target) is None and decision.replicas.get(target):
        current = decision.roles.current
        serving_uri = current.inputs["model"]["uri"] if current is not None and current.inputs else None
        manifest = new_deployment(
            observed.service,
            meta=meta,
            name=target,
            inputs=case.inputs,
            model_uri=model_uri_to_serve(observed, serving_uri=serving_uri),
            replicas=decision.replicas[target],
            asked_replicas=situation.asked.replicas,
            settings=case.settings,
        )
        yield manifest, ENGINES, {"status_first": target in decision.destructive or case.is_asked_anew}
    for variant in sorted(situation.variants, key=lambda one: decision.replicas[one.name] < one.replicas):
        if variant.name in decision.remove:
            continue
        replicas = decision.replicas[variant.name]
        lowered = replicas < variant.replicas
        manifest = existing_deployment(
            variant,
            meta=meta,
            inputs={**case.inputs, "tensorParallelSize": variant.gpus_per_pod}
            if variant.name == target
            else variant.made_from,
            layout=wanted_layout(variant, decision.transition),
            replicas=replicas,
            asked_replicas=situation.asked_of(variant),
        )
        version = str(variant.deployment["metadata"]["resourceVersion"]) if lowered else None
        yield (
            manifest,
            ENGINES,
            {
                "status_first": variant.name in decision.destructive or case.is_asked_anew,
                "resource_version": version,
            },
        )


# what to delete


def _removals(case: _Case) -> Iterator[Delete]:
    for name in case.decision.remove:
        variant = case.situation.find(name)
        if variant is not None:
            yield _delete("Deployment", variant.deployment, status_first=True)


def _unwanted(case: _Case) -> Iterator[Delete]:
    observed = case.observed
    for kind, name in unwanted(observed.service, meta=observed.meta, settings=case.settings):
        live = _own(observed, kind, name)
        if live is not None and not is_deleting(live):
            yield _delete(kind, live, status_first=False)


def _delete(kind: str, live: RawObject, *, status_first: bool) -> Delete:
    """An item of a list says neither its kind nor its version."""
    return Delete(
        api_version=next(version for version, known in CHILD_KINDS if known == kind),
        kind=kind,
        name=str(live["metadata"]["name"]),
        uid=str(live["metadata"]["uid"]),
        status_first=status_first,
    )


def _own(observed: Observed, kind: str, name: str) -> RawObject | None:
    live = observed.children.get((kind, name))
    return live if live is not None and is_owned(live, by=observed.meta) else None


# what to say, and when to look again


def _scaled(case: _Case, claims: tuple[_Claimed, ...]) -> Iterator[Event]:
    sent = {one.apply.name for one in claims if "replicas" in one.apply.object.get("spec", {})}
    for variant in case.situation.variants:
        count = case.decision.replicas[variant.name]
        if count != variant.replicas and str(variant.deployment["metadata"]["name"]) in sent:
            word = "ScaledUp" if count > variant.replicas else "ScaledDown"
            message = f"Variant {variant.name}: {variant.replicas} to {count} replicas"
            yield Event(type="Normal", reason=word, message=message)


def _given_up(news: Setback | None) -> Iterator[Event]:
    if news is not None:
        refused = news.refused
        shape = Shape(tensor_parallel_size=refused.tensor_parallel_size, replicas=refused.replicas)
        message = (
            f"{said(shape)} is given up until {refused.until} for {said(news.fallback)}: {refused.message}"
        )
        yield Event(type="Warning", reason="ShapeRefused", message=message)


def _reclaimed(claims: tuple[_Claimed, ...]) -> Iterator[Event]:
    for one in (field for found in claims for field in found.claim.reclaimed):
        message = f"{one.kind} {one.name} {one.text}: taken back from {one.manager} after its grace time"
        yield Event(type="Normal", reason="FieldReclaimed", message=message)


def _next_deadline_s(case: _Case, outlook: Outlook) -> float | None:
    """Seconds until time alone makes the next plan another one."""
    observed, transition = case.observed, case.decision.transition
    spec = observed.service.spec.transition
    moments: list[float] = []
    if (
        transition is not None
        and (transition.step in (STARTING, RESHAPING) or recreated(transition))
        and transition.deadline is not None
    ):
        moments.append(unix_s(transition.deadline))
        if transition.step_started_at is not None:
            moments.append(unix_s(transition.step_started_at) + spec.pending_deadline_seconds)
        moments += [pod.ready_since_s + ROUTED_AFTER_S for pod in outlook.serving if pod.ready_since_s]
    for pod in outlook.starting:
        moments.append(pod.created_at_s + spec.ready_deadline_seconds)
        if pod.unschedulable_since_s is not None:
            moments.append(pod.unschedulable_since_s + spec.pending_deadline_seconds)
    if (override := observed.service.spec.scaling.override) is not None:
        moments.append(unix_s(override.expires_at))
    moments += [one.since_s + case.settings.foreign_writer_grace_s for one in outlook.foreign]
    ahead = [moment - observed.now_s for moment in moments if moment > observed.now_s]
    return min(ahead) + 1.0 if ahead else None


def _condition_message(status: InferenceServiceStatus | None, kind: str) -> str:
    found = next((one for one in status.conditions if one.type == kind), None) if status else None
    return found.message if found is not None else ""
