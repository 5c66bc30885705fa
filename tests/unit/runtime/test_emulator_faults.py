"""What an emulated engine does wrong when it is told to, and that only the admin socket tells it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest

from paceline_core import Canary, Reference, load_table
from paceline_runtime.emulator.current import ConditionsError, changed
from paceline_runtime.launch.emulation import Conditions, ConstantStep, Emulation, TableStep
from tests.unit.runtime.pod import Pod, pod, until
from tests.unit.runtime.test_processes import emulated, wait_until

H200 = Emulation(timing=TableStep(gpu="h200", model="llama-3.1-70b", format="fp8"), stages_s={})


async def test_a_hung_engine_makes_no_step_and_goes_on_when_it_is_cured(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        async with one.ask(max_tokens=20, ignore_eos=True) as response:
            await response.content.readline()
            assert await one.emulate(fault="Hang") == 200
            await asyncio.sleep(0.05)
            assert one.server.engine.unfinished() == 1
            assert (await one.get("/health"))[0] == 200
            assert (await one.get("/ready"))[0] == 200
            before = await step_count(one)
            await asyncio.sleep(0.2)
            assert await step_count(one) == before
            assert await one.emulate(fault="None") == 200
            assert (await response.text()).endswith("data: [DONE]\n\n")
        await until(lambda: one.server.engine.unfinished() == 0)


async def step_count(one: Pod) -> float:
    _, page = await one.get("/metrics")
    name = "paceline_emulated_step_lag_seconds_count "
    return float(next(line for line in page.splitlines() if line.startswith(name)).removeprefix(name))


async def test_each_step_is_in_the_histogram_of_lags(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        await one.answer(max_tokens=12)
        assert await step_count(one) == 12


async def test_a_probe_of_readiness_that_hangs_is_answered_once_cured(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        await one.emulate(fault="HangReadiness")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await one.get("/ready")
        assert (await one.get("/live"))[0] == 200
        assert (await one.answer(max_tokens=2))[0] == 200
        await one.emulate(fault="None")
        assert (await one.get("/ready"))[0] == 200


async def test_a_change_holds_from_the_next_step(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=0.002) as one:
        await one.emulate(kappa=25)
        since_s = monotonic()
        await one.answer(max_tokens=5)
        assert monotonic() - since_s > 0.2
        async with one.admin.get("http://pod/emulation") as response:
            assert (await response.json())["kappa"] == 25


async def test_no_port_of_the_pod_takes_a_change(tmp_path: Path) -> None:
    async with pod(tmp_path) as one, one.http.put(one.url + "/emulation", json={"kappa": 9}) as response:
        assert response.status == 404


async def test_a_change_that_cannot_be_is_refused_whole(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        assert await one.emulate(kappa=2, fault="Explode") == 400
        async with one.admin.get("http://pod/emulation") as response:
            assert (await response.json())["kappa"] == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"speed": 1}', id="unknown key"),
        pytest.param(b'{"kappa": "fast"}', id="no number"),
        pytest.param(b'{"kappa": true}', id="a boolean"),
        pytest.param(b'{"kappa": null}', id="null"),
        pytest.param(b'{"kappa": NaN}', id="NaN"),
        pytest.param(b'{"noise": -1}', id="negative"),
        pytest.param(b'{"fault": ["Slow"]}', id="fault in a list"),
    ],
)
def test_bad_conditions_are_refused(body: bytes) -> None:
    with pytest.raises(ConditionsError):
        changed(Conditions(), body)


def test_what_a_change_does_not_name_stays() -> None:
    before = Conditions(kappa=1.2, delta_s=0.003, noise=0.1)
    assert changed(before, b'{"fault": "Slow"}') == Conditions(
        kappa=1.2, delta_s=0.003, noise=0.1, fault="Slow"
    )
    assert changed(before, b'{"deltaMilliseconds": 2}').delta_s == pytest.approx(0.002)
    assert changed(before, b'{"deltaMilliseconds": null}').delta_s is None
    assert changed(before, b'{"driftPerHour": -0.2}').drift_per_hour == -0.2


async def test_it_says_which_gpu_it_pretends_to_be(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation=H200, tensor_parallel_size=4) as one:
        card = json.loads((await one.get("/v1/models"))[1])["data"][0]
        assert card["emulation"]["gpu"] == "h200"
        _, page = await one.get("/metrics")
        labels = 'format="fp8",gpu="h200",model="llama-3.1-70b",tensor_parallel_size="4",timing="table"'
        assert f"paceline_emulated_info{{{labels}}} 1.0" in page


async def test_a_stream_has_the_pace_of_the_table(tmp_path: Path) -> None:
    """In real time, and so only from below: 60 tokens of a 70B model on 4 H200, one alone."""
    async with pod(tmp_path, emulation=H200, tensor_parallel_size=4) as one:
        since_s = monotonic()
        await one.answer(max_tokens=60, ignore_eos=True)
        table = load_table("llama-3.1-70b", "fp8", "h200").by_tensor_parallel_size[4]
        assert 60 * table.step_s(decodes=1) - 0.001 < monotonic() - since_s < 5


async def test_hits_in_the_prefix_cache_are_a_declared_share(tmp_path: Path) -> None:
    share = Emulation(timing=ConstantStep(step_s=0.001), stages_s={}, prefix_hit_share=0.5)
    async with pod(tmp_path, emulation=share) as one:
        await one.answer(path="/v1/completions", words=list(range(100)), max_tokens=1)
        _, page = await one.get("/metrics")
        assert 'vllm:prefix_cache_hits_total{engine="0",model_name="m"} 48.0' in page
        assert 'vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 48.0' in page
    async with pod(tmp_path, emulation=share, prefix_caching="Disabled") as one:
        await one.answer(path="/v1/completions", words=list(range(100)), max_tokens=1)
        assert (
            'vllm:prefix_cache_queries_total{engine="0",model_name="m"} 0.0' in (await one.get("/metrics"))[1]
        )


def test_an_engine_that_dies_while_it_loads_leaves_a_verdict(tmp_path: Path) -> None:
    stages = ("--emulate-stages", "fetch=0.1,weights=0.2,warmup=9", "--emulate-fault", "DieLoading")
    with emulated(tmp_path, *stages) as process:
        assert process.child.wait(30) == 1
        assert (process.verdict["verdict"], process.verdict["stage"]) == ("Failed", "weights")


def test_an_engine_that_dies_takes_its_streams_with_it(tmp_path: Path) -> None:
    with emulated(tmp_path, "--emulate-start-seconds", "0") as process:
        process.wait_ready()
        stream = process.stream(max_tokens=500)
        stream.readline()
        asyncio.run(tell(tmp_path / "admin.sock", fault="Die"))
        assert process.child.wait(30) == 1
        assert process.verdict["stage"] == "serving"


async def tell(socket: Path, **changes: Any) -> None:
    connector = aiohttp.UnixConnector(path=str(socket))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.put("http://pod/emulation", json=changes) as response,
    ):
        assert response.status == 200


@pytest.mark.parametrize(
    ("fault", "said"), [("WrongAnswers", "answers otherwise"), ("Slow", "is slower than")]
)
def test_an_emulated_engine_that_is_not_as_those_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    with emulated(tmp_path, "--emulate-start-seconds", "0") as process:
        process.wait_ready()
        served = Canary.from_json(process.json("/paceline/info")["canary"])
    assert served.speed is not None
    expected_s = {served.speed.tensor_parallel_size: served.speed.token_s}
    reference = Reference(canary=served, expected_token_s=expected_s, margin=0.5)
    (tmp_path / "canary.json").write_text(json.dumps(reference.to_json()))
    with emulated(tmp_path, "--emulate-start-seconds", "0") as process:
        process.wait_ready()
    monkeypatch.setenv("EMULATE_FAULT", fault)
    with emulated(tmp_path, "--emulate-start-seconds", "0") as process:
        assert process.child.wait(30) == 78
        assert process.verdict["field"] == "spec.transition.canary"
        assert said in process.verdict["message"]


def test_the_stages_of_the_start_are_those_it_was_told_to_take(tmp_path: Path) -> None:
    with emulated(tmp_path, "--emulate-stages", "compile=0.2,fetch=0.1") as process:
        process.wait_ready()
        stages = process.json("/paceline/info")["stages"]
        assert list(stages) == ["fetch", "compile", "ready"]
        assert 0.1 <= stages["fetch"] < 1
        assert stages["ready"] == pytest.approx(stages["fetch"] + stages["compile"], abs=0.01)


def test_what_only_tests_want_comes_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMULATE_KAPPA", "1.25")
    monkeypatch.setenv("EMULATE_DELTA_MS", "3")
    monkeypatch.setenv("EMULATE_FAULT", "HangReadiness")
    with emulated(tmp_path, "--emulate-start-seconds", "0") as process:
        wait_until(lambda: process.status("/live") == 200)
        assert "paceline_emulated_kappa 1.25" in process.text("/metrics")
        hook = process.run("emulation", "--admin-socket", str(tmp_path / "admin.sock"), "fault=None")
        assert json.loads(hook) == {
            "kappa": 1.25,
            "deltaMilliseconds": 3.0,
            "driftPerHour": 0.0,
            "noise": 0.0,
            "fault": "None",
        }
        process.wait_ready()


@pytest.mark.parametrize(
    ("more", "field", "says"),
    [
        pytest.param(("--emulate-gpu", "h9000"), "spec.runtime.emulation", "h200", id="no such GPU"),
        pytest.param(
            ("--emulate-gpu", "h200", "--tensor-parallel-size", "3"),
            "spec.scaling.tensorParallelSize",
            "1, 2, 4, 8, not 3",
            id="no such size",
        ),
        pytest.param(
            ("--emulate-gpu", "h200", "--emulate-kv-tokens", "100"),
            "spec.model.maxModelTokens",
            "holds 100 tokens",
            id="a cache too small",
        ),
    ],
)
def test_a_gpu_without_a_table_is_refused(
    tmp_path: Path, more: tuple[str, ...], field: str, says: str
) -> None:
    table = ("--emulate-model", "llama-3.1-70b", "--emulate-format", "fp8")
    with emulated(tmp_path, "--model-uri", "hf://a/b@main", *table, *more) as process:
        assert process.child.wait(30) == 78
        assert process.verdict["field"] == field
        assert says in process.verdict["message"]


def test_two_kinds_of_timing_at_once_are_a_mistake(tmp_path: Path) -> None:
    with emulated(tmp_path, "--emulate-step-ms", "10", "--emulate-gpu", "h200") as process:
        assert process.child.wait(30) == 2
        assert "needs --emulate-gpu, --emulate-model" in process.log
