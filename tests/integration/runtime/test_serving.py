"""What our plugins do inside stock vLLM, seen from outside: on a real engine with a real model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from paceline_runtime.vllm_plugin.heartbeat import HUNG_AFTER_S
from tests.integration.runtime.engine import EASY, Client, Engine, until
from tests.unit.runtime.pod import pod

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

IMPOSSIBLE = {"name": "all", "timeToFirstTokenMilliseconds": 1, "timePerOutputTokenMilliseconds": 1}


async def added(client: Client, before: dict[str, float]) -> dict[str, float]:
    """What was counted since."""
    await client.settled()
    after = await client.counts()
    return {
        outcome: after[outcome] - before[outcome] for outcome in after if after[outcome] != before[outcome]
    }


async def test_the_model_answers(client: Client) -> None:
    # Asked so that no other token is near: "What is …?" is a near tie for this model.
    status, body = await client.answer(words="Name the capital of France.", max_tokens=16)
    assert status == 200
    assert "Paris" in json.loads(body)["choices"][0]["message"]["content"]


async def test_the_stages_of_the_start_are_measured_and_add_up(shared: Engine, client: Client) -> None:
    series = await client.series("paceline_startup_stage_seconds")
    stages = {dict(labels)["stage"]: seconds for labels, seconds in series.items()}
    assert stages.keys() == {"fetch", "import", "weights", "compile", "warmup", "ready"}
    assert stages["weights"] > 0
    assert sum(stages.values()) - stages["ready"] == pytest.approx(stages["ready"])


async def test_the_warm_up_was_not_counted(shared: Engine, client: Client) -> None:
    succeeded = sum((await client.series("vllm:request_success_total")).values())
    counted = sum((await client.counts()).values())
    assert succeeded - counted == 3


async def test_info_tells_what_was_read_from_the_checkpoint(client: Client) -> None:
    async with client.http.get(client.url + "/paceline/info") as response:
        info = await response.json()
    assert info["emulated"] is False
    assert info["draining"] is False
    assert info["model"] | {"uri": None} == {
        "uri": None,
        "revision": None,
        "attentionHeads": 9,
        "kvHeads": 3,
        "weightsBytes": 269_030_016,
    }


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_good_request_is_counted_once_on_every_route(client: Client, path: str, stream: bool) -> None:
    before = await client.counts()
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    status, body = await client.answer(path=path, stream=stream, **{limit: 8})
    assert status == 200, body
    assert await added(client, before) == {"good": 1}


@pytest.mark.parametrize("stream", [True, False])
async def test_several_choices_are_one_request(client: Client, stream: bool) -> None:
    before = await client.counts()
    status, _ = await client.answer(stream=stream, n=2, temperature=1, max_tokens=8)
    assert status == 200
    assert await added(client, before) == {"good": 1}


async def test_new_targets_judge_the_next_request_without_a_restart(client: Client) -> None:
    before = await client.counts()
    await client.retarget(IMPOSSIBLE)
    await client.answer(stream=True, max_tokens=8)
    await client.answer(stream=False, max_tokens=8)
    await client.settled()
    await client.retarget(EASY)
    assert await added(client, before) == {"late_both": 2}


async def test_token_counts_are_exact_and_the_client_sees_no_difference(client: Client) -> None:
    """The class of a prompt follows its exact length; a stream without usage stays without it."""
    async with client.ask(stream=True, max_tokens=4, stream_options={"include_usage": True}) as response:
        usage = json.loads((await response.text()).split("data: ")[-2])["usage"]
    exact = {"name": "exact", "maxPromptTokens": usage["prompt_tokens"]}
    await client.retarget(EASY | exact, EASY | {"name": "longer"})
    _, body = await client.answer(stream=True, max_tokens=4)
    await client.answer(words="Name three colours. Now.", stream=True, max_tokens=4)
    await client.settled()
    await client.retarget(EASY)
    counts = await client.series("paceline_requests_total")
    assert '"usage"' not in body
    for name in ("exact", "longer"):
        assert counts[frozenset({("latency_class", name), ("outcome", "good")})] == 1


async def test_a_client_that_leaves_is_counted_in_the_class_of_its_prompt(client: Client) -> None:
    before = await client.counts()
    async with client.ask(stream=True, max_tokens=250, ignore_eos=True) as response:
        await response.content.readline()
    assert await added(client, before) == {"aborted_late": 1}
    labels = frozenset({("latency_class", "all"), ("outcome", "aborted_late")})
    assert (await client.series("paceline_requests_total"))[labels] >= 1


async def test_the_requests_own_fault_is_no_miss(client: Client) -> None:
    before = await client.counts()
    assert (await client.answer(messages=[]))[0] == 400
    assert (await client.answer(model="other"))[0] == 404
    assert (await client.answer(words="word " * 750))[0] == 413
    assert await added(client, before) == {"client_error": 3}


async def test_the_longest_answer_of_the_service_bounds_what_a_client_asks_for(client: Client) -> None:
    _, body = await client.answer(max_tokens=900, ignore_eos=True)
    assert json.loads(body)["usage"]["completion_tokens"] == 256


@pytest.mark.parametrize("stream", [True, False])
async def test_a_full_queue_answers_429_and_recovers_at_once(client: Client, stream: bool) -> None:
    before = await client.counts()
    answers = await asyncio.gather(
        *(client.answer(stream=stream, max_tokens=24, ignore_eos=True) for _ in range(12))
    )
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 4  # two run, two wait
    assert all("error" not in body for status, body in answers if status == 200)
    since_s = time.monotonic()
    assert (await client.answer(max_tokens=1))[0] == 200
    assert time.monotonic() - since_s < 2
    assert await added(client, before) == {
        "good": statuses.count(200) + 1,
        "rejected": statuses.count(429),
    }


async def test_the_emulated_engine_invents_no_series(client: Client, tmp_path: Path) -> None:
    """Every vllm: series of the emulated engine is one of vLLM's, with the same labels."""
    async with client.http.get(client.url + "/metrics") as response:
        real = labels_by_name(await response.text())
    async with pod(tmp_path) as one:
        emulated = {
            name: labels
            for name, labels in labels_by_name((await one.get("/metrics"))[1]).items()
            if not name.startswith("paceline_emulated_")
        }
    assert emulated
    assert {name: real.get(name) for name in emulated} == emulated


def labels_by_name(page: str) -> dict[str, frozenset[str]]:
    from prometheus_client.parser import text_string_to_metric_families

    return {
        sample.name: frozenset(sample.labels)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith(("vllm:", "paceline"))
    }


async def test_the_histograms_have_an_edge_at_each_target(client: Client) -> None:
    for name in ("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"):
        edges = {dict(labels)["le"] for labels in await client.series(f"{name}_bucket")}
        assert "3600.0" in edges, name


@pytest.mark.slow
async def test_an_engine_that_hangs_is_told_from_a_busy_one(shared: Engine, client: Client) -> None:
    worker = shared.child("VLLM::Worker")
    stream = asyncio.create_task(client.answer(stream=True, max_tokens=200, ignore_eos=True))
    await asyncio.sleep(1)
    os.kill(worker, signal.SIGSTOP)
    try:
        await asyncio.sleep(HUNG_AFTER_S / 2)
        assert await status(client, "/live") == 200
        await until(lambda: is_status(client, "/live", 503), timeout_s=HUNG_AFTER_S)
        assert await status(client, "/health") == 200
    finally:
        os.kill(worker, signal.SIGCONT)
    assert (await stream)[1].endswith("data: [DONE]\n\n")
    assert await status(client, "/live") == 200


async def status(client: Client, path: str) -> int:
    async with client.http.get(client.url + path, timeout=aiohttp.ClientTimeout(total=10)) as response:
        return response.status


async def is_status(client: Client, path: str, wanted: int) -> bool:
    return await status(client, path) == wanted
