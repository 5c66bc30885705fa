"""The status of a service, from what a plan has worked out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from paceline.api import (
    Condition,
    GpuCount,
    InferenceServiceStatus,
    ModelStatus,
    Shape,
    Shapes,
    Summary,
    VariantStatus,
)
from paceline.fleet.feasibility import known_facts
from paceline.fleet.observed import Pod
from paceline.fleet.outlook import Outlook
from paceline.fleet.roles import is_active
from paceline.fleet.services import public_url
from paceline.fleet.setback import Setback, refused_shapes
from paceline.fleet.variant import Variant
from paceline_core import Layout


def service_status(
    outlook: Outlook, *, conditions: tuple[Condition, ...], news: Setback | None
) -> InferenceServiceStatus:
    observed, decision = outlook.observed, outlook.decision
    budget = observed.service.spec.scaling.gpu_budget
    return InferenceServiceStatus(
        observed_generation=observed.meta.generation,
        conditions=conditions,
        model=_model(outlook),
        url=public_url(observed.meta),
        selector=observed.service.selector,
        replicas=len(outlook.serving) + len(outlook.starting),
        summary=_summary(outlook, conditions=conditions),
        shape=_shapes(outlook, desired=news.fallback if news is not None else outlook.asked),
        gpus=GpuCount(
            serving=_gpus(outlook.serving),
            starting=_gpus(outlook.starting),
            draining=_gpus(outlook.draining),
            budget=budget.max if budget is not None else None,
        ),
        variants=_variants(outlook),
        transition=decision.transition,
        # What the planner asked for and was refused binds only the planner.
        refused=decision.refused if news is None else None,
        slo=outlook.autoscaling.slo,
        decisions=outlook.autoscaling.decisions,
        refused_shapes=refused_shapes(observed, news=news),
        last_straggler=outlook.last_straggler,
    )


def _model(outlook: Outlook) -> ModelStatus | None:
    """A pod's own word, else the files', else what was known before of the same uri."""
    observed, current = outlook.observed, outlook.decision.roles.current
    infos = [pod.info for pod in (current.serving if current is not None else ()) if pod.info is not None]
    info, facts = (infos[0] if infos else None), known_facts(observed)
    before = observed.status.model if observed.status is not None else None
    made_from = current.inputs["model"]["uri"] if current is not None and current.inputs else None
    if before is None or made_from != observed.service.spec.model.uri:
        before = ModelStatus()
    found = ModelStatus(
        revision=(info and info.model_revision) or before.revision or observed.model_revision,
        attention_heads=(info and info.attention_heads)
        or (facts and facts.attention_heads)
        or before.attention_heads,
        kv_heads=(info and info.kv_heads) or (facts and facts.kv_heads) or before.kv_heads,
        weights_bytes=(info and info.weights_bytes)
        or (facts and facts.weights_bytes)
        or before.weights_bytes,
    )
    return found if found != ModelStatus() else None


def _summary(outlook: Outlook, *, conditions: tuple[Condition, ...]) -> Summary:
    """The targets of the first latency class stand for all in the columns; not measured is `-`."""
    columns = outlook.autoscaling.columns
    return Summary(
        replicas=f"{outlook.serving_replicas}/{outlook.asked.replicas}",
        time_to_first_token=columns.time_to_first_token,
        time_per_output_token=columns.time_per_output_token,
        reason=_reason(outlook, conditions={one.type: one for one in conditions}),
    )


def _reason(outlook: Outlook, *, conditions: dict[str, Condition]) -> str:
    """The most telling word: what a person must act on, then what is under way, then how it is."""
    progressing, ready = conditions["Progressing"], conditions["Ready"]
    if outlook.observed.service.spec.paused:
        return "Paused"
    if outlook.taken_names or outlook.decision.refused is not None:
        return progressing.reason if not is_active(outlook.decision.transition) else "RollingBack"
    if conditions["ForeignWriter"].status == "True":
        return "ForeignWriter"
    if conditions["CapacityAvailable"].status == "False":
        return conditions["CapacityAvailable"].reason
    if conditions["ModelLoaded"].reason == "StartFailed":
        return "StartFailed"
    if is_active(outlook.decision.transition) or progressing.reason in ("Waiting", "ReadyDeadlineExceeded"):
        return progressing.reason
    if ready.status == "True" and conditions["ModelLoaded"].reason == "Emulated":
        return "Emulated"
    return ready.reason


def _shapes(outlook: Outlook, *, desired: Shape) -> Shapes:
    current, asked = outlook.decision.roles.current, outlook.asked
    before = outlook.observed.status.shape if outlook.observed.status is not None else None
    serving = _serving_shape(current) if current is not None else None
    last_safe = before.last_safe if before is not None else None
    if (
        serving is not None
        and serving.tensor_parallel_size == asked.tensor_parallel_size
        and serving.replicas >= asked.replicas > 0
    ):
        last_safe = asked
    return Shapes(current=serving, desired=desired, last_safe=last_safe)


def _serving_shape(current: Variant) -> Shape | None:
    """While its pods change in place, the size that most of them serve in."""
    template = Layout(current.gpus_per_pod)
    layouts = Counter(pod.layout or template for pod in current.serving)
    if not layouts:
        return None
    layout, pods = max(layouts.items(), key=lambda one: (one[1], one[0] == current.layout))
    return Shape(tensor_parallel_size=layout.tensor_parallel_size, replicas=pods * layout.data_parallel_size)


def _variants(outlook: Outlook) -> tuple[VariantStatus, ...]:
    """Also of pods whose Deployment is gone already."""
    sizes = {one.name: one.tensor_parallel_size for one in outlook.variants}
    for pod in outlook.engine_pods:
        if pod.variant is not None and pod.tensor_parallel_size is not None:
            sizes.setdefault(pod.variant, pod.tensor_parallel_size)
    return tuple(
        VariantStatus(
            name=name,
            tensor_parallel_size=size,
            ready=_count(outlook.serving, name),
            starting=_count(outlook.starting, name),
            draining=_count(outlook.draining, name),
        )
        for name, size in sorted(sizes.items())
    )[:32]


def _count(pods: Iterable[Pod], variant: str) -> int:
    return sum(1 for pod in pods if pod.variant == variant)


def _gpus(pods: Iterable[Pod]) -> int:
    return sum(pod.gpus for pod in pods)
