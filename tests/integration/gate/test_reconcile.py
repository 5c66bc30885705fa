"""The router's list is equal to the Ready pods, whatever its own discovery or the API server does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.pod_api import LABELS, PodApi
from tests.integration.gate.processes import free_port, stack

WITHIN_S = 8.0
"""One look every five seconds, one more to let the router's own discovery act, and a slow test machine."""


@pytest.fixture
async def api() -> AsyncIterator[PodApi]:
    made = await PodApi().start()
    yield made
    await made.stop()


@pytest.fixture
def port() -> int:
    return free_port()


async def test_the_router_finds_pods_by_both_labels_by_itself(
    tmp_path: Path, start_worker: StartWorker, api: PodApi, port: int
) -> None:
    for number in (2, 3, 4):
        await start_worker(ip=f"127.0.0.{number}", port=port)
    await api.put("ours", ip="127.0.0.2")
    await api.put("router", ip="127.0.0.3", labels={**LABELS, "paceline.dev/component": "router"})
    await api.put("other", ip="127.0.0.4", labels={**LABELS, "paceline.dev/service": "t"})
    config = api.kubeconfig(tmp_path)
    async with stack(tmp_path, api_server=api.url, engine_port=port, kubeconfig=config) as served:
        await served.gate.stop()
        await served.wait_listed({f"127.0.0.2:{port}"})
        await start_worker(ip="127.0.0.5", port=port)
        await api.put("second", ip="127.0.0.5")
        await served.wait_listed({f"127.0.0.2:{port}", f"127.0.0.5:{port}"}, timeout_s=3)
        await api.put("second", ip="127.0.0.5", ready=False)
        await served.wait_listed({f"127.0.0.2:{port}"}, timeout_s=3)
        await api.delete("ours")
        await served.wait_listed(set(), timeout_s=3)


async def test_a_gate_is_ready_when_the_list_is_equal_to_the_pods(
    tmp_path: Path, start_worker: StartWorker, api: PodApi, port: int
) -> None:
    await api.put("late", ip="127.0.0.2")
    async with stack(tmp_path, api_server=api.url, engine_port=port) as served:
        assert await served.ready() == 503
        differs_s = 0.0
        while not differs_s > 1:
            assert await served.ready() == 503
            await asyncio.sleep(0.2)
            differs_s = await served.metric("paceline_gate_router_divergence_seconds")
        await start_worker(ip="127.0.0.2", port=port)
        await served.wait_ready()
        assert await served.listed() == {f"127.0.0.2:{port}"}
        assert await served.metric("paceline_gate_router_divergence_seconds") == 0


async def test_one_dead_pod_does_not_keep_a_gate_from_becoming_ready(
    tmp_path: Path, start_worker: StartWorker, api: PodApi, port: int
) -> None:
    await start_worker(ip="127.0.0.2", port=port)
    await api.put("alive", ip="127.0.0.2")
    await api.put("dead", ip="127.0.0.3")
    config = api.kubeconfig(tmp_path)
    async with stack(tmp_path, api_server=api.url, engine_port=port, kubeconfig=config) as served:
        since_s = time.monotonic()
        while await served.ready() != 200:
            assert time.monotonic() - since_s < 20
            await asyncio.sleep(0.1)
        assert await served.listed() == {f"127.0.0.2:{port}"}
        assert (await served.ask())[0] == 200
        # A dead pod is still a difference, and is told after 15 s.
        await asyncio.sleep(max(0, 17 - (time.monotonic() - since_s)))
        assert await served.metric("paceline_gate_router_divergence_seconds") > 15
        assert served.gate.output().count("router_list_differs") == 1


async def test_ghosts_go_and_missing_workers_come(
    tmp_path: Path, start_worker: StartWorker, api: PodApi, port: int
) -> None:
    for number in (2, 3):
        await start_worker(ip=f"127.0.0.{number}", port=port)
        await api.put(f"pod-{number}", ip=f"127.0.0.{number}")
    stranger = await start_worker(ip="127.0.0.9", port=port)
    both = {f"127.0.0.2:{port}", f"127.0.0.3:{port}"}
    config = api.kubeconfig(tmp_path)
    async with stack(tmp_path, api_server=api.url, engine_port=port, kubeconfig=config) as served:
        await served.wait_listed(both)
        await served.wait_ready()
        await served.router_post("add_worker", worker=stranger.address)
        await served.wait_listed(both, timeout_s=WITHIN_S)
        await served.router_post("remove_worker", worker=f"127.0.0.2:{port}")
        await served.wait_listed(both, timeout_s=WITHIN_S)
        # The router's own discovery is known to keep a pod that ends without a deletion time-stamp.
        await api.delete("pod-3", announced=False)
        await served.wait_listed({f"127.0.0.2:{port}"}, timeout_s=WITHIN_S)


async def test_a_restarted_router_has_its_workers_back(
    tmp_path: Path, start_worker: StartWorker, api: PodApi, port: int
) -> None:
    await start_worker(ip="127.0.0.2", port=port)
    await api.put("pod", ip="127.0.0.2")
    # The router's discovery does not start here (no kubeconfig): the gate alone repairs.
    async with stack(tmp_path, api_server=api.url, engine_port=port) as served:
        await served.wait_ready()
        await served.router.stop()
        served.router.start()
        await served.wait_listed({f"127.0.0.2:{port}"}, timeout_s=WITHIN_S + 3)


@pytest.mark.parametrize("fault", ["cut", "error-event", "410", "down"])
async def test_the_watch_comes_back_after(
    tmp_path: Path, start_worker: StartWorker, api: PodApi, port: int, fault: str
) -> None:
    for number in (2, 3):
        await start_worker(ip=f"127.0.0.{number}", port=port)
    await api.put("pod-2", ip="127.0.0.2")
    async with stack(tmp_path, api_server=api.url, engine_port=port) as served:
        await served.wait_ready()
        lists, watches = api.lists, api.watches
        match fault:
            case "cut":
                await api.end_watches()
            case "error-event":
                await api.error_event()
            case "410":
                api.gone = 2
                await api.end_watches()
            case "down":
                api.down = True
                await api.end_watches()
                await asyncio.sleep(3)
                assert await served.listed() == {f"127.0.0.2:{port}"}, "an API outage removes nothing"
                api.down = False
        await api.put("pod-3", ip="127.0.0.3")
        await served.wait_listed({f"127.0.0.2:{port}", f"127.0.0.3:{port}"}, timeout_s=WITHIN_S + 5)
        await api.delete("pod-2")
        await served.wait_listed({f"127.0.0.3:{port}"}, timeout_s=WITHIN_S)
        # Recovered by few requests, not by a storm of them.
        assert api.watches - watches < 10
        assert api.lists - lists < 30
        assert served.gate.output().count("pod_watch_lost") == 1


async def test_a_blind_watch_removes_nothing(
    tmp_path: Path, start_worker: StartWorker, api: PodApi, port: int
) -> None:
    for number in (2, 3):
        await start_worker(ip=f"127.0.0.{number}", port=port)
    await api.put("pod-2", ip="127.0.0.2")
    async with stack(tmp_path, api_server=api.url, engine_port=port) as served:
        await served.wait_ready()
        api.silent = True
        await api.put("pod-3", ip="127.0.0.3")
        await served.router_post("add_worker", worker=f"127.0.0.3:{port}")
        for _ in range(35):
            assert f"127.0.0.3:{port}" in await served.listed()
            await asyncio.sleep(0.2)


async def test_a_pod_whose_port_is_silent_does_not_stall_the_others(
    tmp_path: Path, start_worker: StartWorker, api: PodApi, port: int
) -> None:
    # Accepts connections and never answers: worse for a health check than a closed port.
    silent = await asyncio.start_server(lambda r, w: asyncio.sleep(3600), "127.0.0.9", port)
    config = api.kubeconfig(tmp_path)
    async with silent, stack(tmp_path, api_server=api.url, engine_port=port, kubeconfig=config) as served:
        await served.wait_ready()
        await api.put("silent", ip="127.0.0.9")
        await start_worker(ip="127.0.0.2", port=port)
        await api.put("pod-2", ip="127.0.0.2")
        await served.wait_listed({f"127.0.0.2:{port}"}, timeout_s=WITHIN_S)
