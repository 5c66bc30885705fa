"""What is repaired, when, and what is not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline_runtime.gate.metrics import Metrics
from paceline_runtime.gate.pods import Pod, PodsUnreadable
from paceline_runtime.gate.workers import Difference, Reconcile, RouterGone, RouterList, RouterSilent

addresses = st.frozensets(st.sampled_from([f"10.0.0.{n}:8000" for n in range(6)]))


@given(listed=addresses, wanted=addresses)
def test_a_repaired_difference_leaves_none(listed: frozenset[str], wanted: frozenset[str]) -> None:
    difference = Difference.between(listed=listed, wanted=wanted)
    assert (listed - difference.ghosts) | difference.missing == wanted
    assert not difference.ghosts & wanted
    assert bool(difference) == (listed != wanted)


class Router(RouterList):
    """The seam: a router that takes what it is told, without a process."""

    def __init__(self, *workers: str) -> None:
        self.workers = set(workers)
        self.refuses: set[str] = set()
        self.silent = False

    async def read(self) -> frozenset[str]:
        if self.silent:
            raise RouterSilent("silent")
        return frozenset(self.workers)

    async def add(self, worker: str) -> bool:
        await asyncio.sleep(0)
        if worker in self.refuses:
            return False
        self.workers.add(worker)
        return True

    async def remove(self, worker: str) -> bool:
        self.workers.discard(worker)
        return True


@dataclass
class Pods:
    """A view that may be old, and the truth behind it."""

    seen: frozenset[str] | None
    truth: frozenset[str] | None = None
    reads: int = field(default=0)

    def addresses(self) -> frozenset[str] | None:
        return self.seen

    async def read(self) -> frozenset[str]:
        self.reads += 1
        if self.truth is None:
            raise PodsUnreadable("no answer")
        return self.truth


def reconcile(router: Router, pods: Pods, *, add_after_s: float = 0) -> Reconcile:
    return Reconcile(router, wanted=pods, changed=asyncio.Event(), metrics=Metrics(), add_after_s=add_after_s)


async def settle(reconcile: Reconcile) -> None:
    for _ in range(3):
        await reconcile.look()
        await asyncio.sleep(0.01)


async def test_the_list_becomes_the_pods() -> None:
    router = Router("a:1", "ghost:1")
    made = reconcile(router, Pods(frozenset({"a:1", "b:1"}), frozenset({"a:1", "b:1"})))
    assert not made.equalled_once
    await settle(made)
    assert router.workers == {"a:1", "b:1"}
    assert made.equalled_once


async def test_nothing_is_changed_from_an_old_view() -> None:
    router = Router("a:1", "new:1")
    truth = frozenset({"a:1", "new:1"})
    await settle(reconcile(router, Pods(frozenset({"a:1"}), truth)))
    assert router.workers == truth
    router = Router("a:1", "b:1")
    await settle(reconcile(router, Pods(frozenset({"a:1"}), None)))
    assert router.workers == {"a:1", "b:1"}, "the API server does not answer: nothing is known to be wrong"


async def test_nothing_is_changed_before_the_pods_are_known() -> None:
    router = Router("a:1")
    made = reconcile(router, Pods(None, frozenset()))
    await settle(made)
    assert router.workers == {"a:1"}
    assert not made.equalled_once


async def test_equal_views_cost_no_list_of_the_pods() -> None:
    pods = Pods(frozenset({"a:1"}), frozenset({"a:1"}))
    await settle(reconcile(Router("a:1"), pods))
    assert pods.reads == 0


async def test_a_missing_worker_is_left_to_discovery_first() -> None:
    router = Router()
    made = reconcile(router, Pods(frozenset({"a:1"}), frozenset({"a:1"})), add_after_s=0.2)
    await settle(made)
    assert router.workers == set()
    await asyncio.sleep(0.2)
    await settle(made)
    assert router.workers == {"a:1"}


async def test_a_worker_that_began_to_drain_while_it_was_added_is_taken_out() -> None:
    router = Router()
    pods = Pods(frozenset({"a:1"}), frozenset({"a:1"}))
    made = reconcile(router, pods)
    await made.look()
    pods.seen = frozenset()
    await asyncio.sleep(0.01)
    assert router.workers == set()


async def test_a_dead_pod_is_a_difference_but_no_reason_not_to_be_ready() -> None:
    router = Router("a:1")
    router.refuses = {"dead:1"}
    both = frozenset({"a:1", "dead:1"})
    made = reconcile(router, Pods(both, both))
    await made.look()
    assert not made.equalled_once
    await asyncio.sleep(0.01)
    await made.look()
    assert made.equalled_once


async def test_a_silent_router_is_told_by_its_silence() -> None:
    router = Router("a:1")
    made = reconcile(router, Pods(frozenset({"a:1"}), frozenset({"a:1"})))
    assert made.silent_s() == float("inf")
    await made.look()
    assert made.silent_s() < 1
    router.silent = True
    await asyncio.sleep(0.1)
    await made.look()
    assert made.silent_s() >= 0.1
    assert made.gone_s() < 0.1


async def test_only_workers_that_take_no_connection_are_evicted() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    alive = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    router = Router(alive, "127.0.0.1:1")
    made = reconcile(router, Pods(None))
    async with server:
        assert set(await asyncio.gather(made.evict_dead(), made.evict_dead())) == {1}
    assert router.workers == {alive}


async def test_a_router_that_is_not_there_is_gone() -> None:
    async with aiohttp.ClientSession() as session:
        router = RouterList(session, router_url="http://127.0.0.1:1")
        with pytest.raises(RouterGone):
            await router.read()
        for ask in (router.add("a:1"), router.remove("a:1")):
            try:
                await ask
            except RouterSilent:
                continue
            raise AssertionError("RouterSilent was not raised")


def pod(**status: object) -> dict[str, object]:
    ready = [{"type": "Ready", "status": "True"}]
    base = {"phase": "Running", "podIP": "10.0.0.1", "conditions": ready}
    return {"metadata": {"name": "p"}, "status": {**base, **status}}


def test_a_pod_is_wanted_only_while_it_is_ready_and_stays() -> None:
    assert Pod.of(pod()).address(port=8000) == "10.0.0.1:8000"
    assert Pod.of(pod(podIP="fd00::1")).address(port=8000) == "[fd00::1]:8000"
    not_ready = [{"type": "Ready", "status": "False"}]
    for document in (
        pod(phase="Pending"),
        pod(conditions=not_ready),
        pod(conditions=None),
        pod(podIP=None),
        {"metadata": {"name": "p"}},
        {**pod(), "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ):
        assert Pod.of(document).address(port=8000) is None
