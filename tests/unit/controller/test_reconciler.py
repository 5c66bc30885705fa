"""The order in which a plan is carried out: what must come first does, and what must not follow a failure does not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from paceline.api import InferenceServiceStatus
from paceline.controller import reconciler as module
from paceline.controller.advice_book import AdviceBook
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.conflict_book import ConflictBook
from paceline.controller.errors import FenceLost, Unavailable
from paceline.controller.facts import Lookup
from paceline.controller.instruments import Instruments
from paceline.controller.reconciler import Reconciler, Result
from paceline.controller.resources import INFERENCE_SERVICE
from paceline.controller.work_queue import ServiceKey
from paceline.controller.writer import Outcome
from paceline.fleet import Apply, Delete, Event, Images, Plan, Settings
from paceline.fleet.manifests import AFTER_ENGINES, BEFORE_ENGINES, ENGINES

KEY = ServiceKey("ns", "chat")
SETTINGS = Settings(
    images=Images(runtime_gpu="a", runtime_cpu="b", emulator="c", router="d"),
    operator_version="1",
    operator_namespace="sys",
)
URGENT_DONE = "urgent done"


def _raw(*, status: bool = True, deleting: bool = False) -> dict[str, Any]:
    meta = {
        "name": "chat", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "5",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    raw: dict[str, Any] = {
        "apiVersion": "paceline.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": meta,
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct"},
            "slo": {"preset": "Standard"},
            "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
        },
    }
    if status:
        raw["status"] = {"url": "http://old"}
    return raw


def _apply(name: str, priority: int, *, status_first: bool = False) -> Apply:
    body: Mapping[str, Any] = {"kind": "Deployment", "metadata": {"name": name, "namespace": "ns"}}
    return Apply(object=body, priority=priority, status_first=status_first)


def _delete(name: str, *, status_first: bool = False) -> Delete:
    return Delete(api_version="apps/v1", kind="Deployment", name=name, uid="u", status_first=status_first)


class Hands:
    """Stands for writer, status writer and recorder: notes what was done, and answers as the test says."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.outcomes: dict[str, Outcome | Exception] = {}
        self.status_accepted = True

    async def _act(self, verb: str, name: str) -> Outcome:
        self.done.append(f"{verb} {name}")
        outcome = self.outcomes.get(name, Outcome.SAME)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def apply(self, _: ServiceKey, action: Apply, **__: Any) -> Outcome:
        return await self._act("apply", action.name)

    async def delete(self, _: ServiceKey, action: Delete, **__: Any) -> Outcome:
        return await self._act("delete", action.name)

    async def write(self, *_: Any, **__: Any) -> bool:
        self.done.append("status")
        return self.status_accepted

    def post(self, _: Any, event: Event) -> None:
        self.done.append(f"event {event.reason}")


class Unknown:
    """Facts and words of pods: there are none."""

    def lookup(self, *_: Any) -> Lookup:
        return Lookup()

    def of(self, *_: Any) -> None:
        return None


@pytest.fixture
def hands() -> Hands:
    return Hands()


def _reconciler(hands: Hands, cache: ClusterCache) -> Reconciler:
    return Reconciler(
        cache=cache,
        conflicts=ConflictBook(),
        writer=cast(Any, hands),
        status_writer=cast(Any, hands),
        events=cast(Any, hands),
        facts=cast(Any, Unknown()),
        pod_infos=cast(Any, Unknown()),
        advice=AdviceBook(),
        instruments=Instruments(),
        settings=lambda: SETTINGS,
        now_s=time.time,
    )


async def _run(
    hands: Hands, monkeypatch: pytest.MonkeyPatch, *, raw: dict[str, Any] | None = None, **parts: Any
) -> Result:
    cache = ClusterCache()
    cache.put(INFERENCE_SERVICE, raw or _raw())
    what = Plan(status=InferenceServiceStatus(url="http://new"), **parts)
    monkeypatch.setattr(module, "plan", lambda *_, **__: what)
    reconciler = _reconciler(hands, cache)

    def urgent_done() -> None:
        if URGENT_DONE not in hands.done:
            hands.done.append(URGENT_DONE)

    return await reconciler.run(KEY, urgent_done=urgent_done)


async def test_the_order_is_applies_deletes_status_events(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _run(
        hands,
        monkeypatch,
        apply=(_apply("slo", BEFORE_ENGINES), _apply("engine", ENGINES), _apply("router", AFTER_ENGINES)),
        delete=(_delete("old"),),
        events=(Event(type="Normal", reason="Scaled", message="m"),),
    )
    assert hands.done == [
        "apply slo", "apply engine", URGENT_DONE, "apply router", "delete old", "status", "event Scaled",
    ]  # fmt: skip


async def test_a_step_that_cannot_be_taken_back_follows_its_status(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _run(hands, monkeypatch, delete=(_delete("old", status_first=True),))
    assert hands.done == ["status", URGENT_DONE, "delete old"]


async def test_nothing_is_done_when_that_status_is_refused(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator, or a person with a new spec, wrote in between."""
    hands.status_accepted = False
    result = await _run(
        hands,
        monkeypatch,
        apply=(_apply("engine", ENGINES),),
        delete=(_delete("old", status_first=True),),
        events=(Event(type="Normal", reason="Scaled", message="m"),),
    )
    assert hands.done == ["status"]
    assert result.too_early


async def test_one_that_fails_stops_neither_the_others_nor_the_status(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands.outcomes["slo"] = Unavailable("no", status=503, what="apply")
    result = await _run(
        hands,
        monkeypatch,
        apply=(_apply("slo", BEFORE_ENGINES), _apply("engine", ENGINES)),
        delete=(_delete("old"),),
    )
    assert hands.done == ["apply slo", "apply engine", URGENT_DONE, "delete old", "status"]
    assert result.failed


async def test_a_failed_step_stops_the_steps_behind_it(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new variant could not be made: the old one is not lowered."""
    hands.outcomes["new"] = Unavailable("no", status=503, what="apply")
    await _run(
        hands,
        monkeypatch,
        apply=(
            _apply("new", ENGINES, status_first=True),
            _apply("old", ENGINES, status_first=True),
            _apply("router", AFTER_ENGINES),
        ),
        delete=(_delete("older", status_first=True), _delete("policy")),
    )
    assert hands.done == ["status", "apply new", URGENT_DONE, "apply router", "delete policy"]


async def test_nothing_follows_a_look_that_came_too_early(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands.outcomes["engine"] = Outcome.LOOK_AGAIN
    result = await _run(
        hands,
        monkeypatch,
        apply=(_apply("engine", ENGINES), _apply("router", AFTER_ENGINES)),
        delete=(_delete("old"),),
    )
    assert hands.done == ["apply engine", URGENT_DONE]
    assert result.too_early


async def test_without_the_fence_everything_stops(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    hands.outcomes["engine"] = FenceLost("lost")
    with pytest.raises(FenceLost):
        await _run(hands, monkeypatch, apply=(_apply("engine", ENGINES), _apply("router", AFTER_ENGINES)))
    assert hands.done == ["apply engine"]


async def test_a_service_on_its_way_out_is_left_to_the_garbage_collector(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _run(hands, monkeypatch, raw=_raw(deleting=True), apply=(_apply("engine", ENGINES),))
    assert hands.done == []


async def test_the_first_status_waits_for_the_look_after_the_children(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands.outcomes["engine"] = Outcome.WROTE
    result = await _run(hands, monkeypatch, raw=_raw(status=False), apply=(_apply("engine", ENGINES),))
    assert hands.done == ["apply engine", URGENT_DONE]
    assert result.moved


def test_a_status_is_read_anew_only_when_the_object_is_another(hands: Hands) -> None:
    """The decision loop looks at every service twice a tick."""
    cache = ClusterCache()
    reconciler, raw = _reconciler(hands, cache), _raw()
    cache.put(INFERENCE_SERVICE, raw)
    first, second = reconciler.look(KEY), reconciler.look(KEY)
    assert first is not None
    assert second is not None
    assert first.status is second.status
    newer = {**raw, "metadata": {**raw["metadata"], "resourceVersion": "6"}, "status": {"url": "http://new"}}
    cache.put(INFERENCE_SERVICE, newer)
    third = reconciler.look(KEY)
    assert third is not None
    assert third.status is not None
    assert third.status.url == "http://new"
    cache.put(
        INFERENCE_SERVICE, {**_raw(status=False), "metadata": {**raw["metadata"], "resourceVersion": "7"}}
    )
    fourth = reconciler.look(KEY)
    assert fourth is not None
    assert fourth.status is None
