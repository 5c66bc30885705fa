"""BF16, INT8 and, where the CPU can, INT8 with an FP8 KV cache side by side: size, latency, throughput, perplexity.

Called by hand (docs/quantization.md has the command and its table). It starts stock vLLM on the CPU,
one server at a time, on loopback. A round measures each variant once, in an order that rotates from
round to round, so that a machine that slows down slows all three; ratios compare within a round. The
text and the prompts are quantized.txt beside this file. It must not be read as a statement about GPUs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from paceline_runtime.launch.machine import computes_bf16

TEXT = Path(__file__).with_name("quantized.txt")
SERVED_NAME = "quantized"
START_DEADLINE_S = 600.0
"""Seconds until a server answers; 34 were seen on two idle cores."""
STOP_DEADLINE_S = 30.0
REQUEST_DEADLINE_S = 300.0
KV_CACHE_GIB = 1
MAX_MODEL_TOKENS = 4096
MAX_BATCHED_TOKENS = 512
"""Small, so that most of the perplexity text attends to keys and values that are read from the cache."""
PROMPT_WORDS = 160
TTFT_OUTPUT_TOKENS = 32
ONE_STREAM_REQUESTS = 10
EIGHT_STREAMS_REQUESTS_EACH = 4
SIXTEEN_STREAMS_OUTPUT_TOKENS = 128


class BenchmarkError(Exception):
    """A measurement that would not mean what its column says."""


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    model_dir: Path
    kv_cache_dtype: str
    dtype: str = "auto"


@dataclass(frozen=True, slots=True)
class Answer:
    time_to_first_token_s: float
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One variant in one round."""

    ttft_1_stream_ms: float
    ttft_8_streams_ms: float
    throughput_16_streams_tokens_per_s: float
    kv_cache_tokens: int
    token_logprobs: tuple[float, ...]
    foreign_cores: float
    """What other processes used of this machine during the timed part."""

    @property
    def perplexity(self) -> float:
        return math.exp(-statistics.fmean(self.token_logprobs))


def checkpoint_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True, slots=True)
class CpuClock:
    """Processor seconds so far: of the whole machine (stolen time included), and of this benchmark."""

    machine_s: float
    own_s: float
    wall_s: float

    @classmethod
    def read(cls, *, server_session: int) -> CpuClock:
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        user, nice, system, _idle, _iowait, irq, softirq, steal = (
            int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        )
        own_ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it ended between the listing and the reading
                continue
            if int(fields[3]) == server_session or stat.parent.name == str(os.getpid()):
                own_ticks += int(fields[11]) + int(fields[12])
        machine_ticks = user + nice + system + irq + softirq + steal
        return cls(machine_ticks / ticks_per_s, own_ticks / ticks_per_s, time.monotonic())

    def foreign_cores_since(self, before: CpuClock) -> float:
        foreign_s = (self.machine_s - before.machine_s) - (self.own_s - before.own_s)
        return foreign_s / (self.wall_s - before.wall_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def stop(process: asyncio.subprocess.Process) -> None:
    """End the server and the processes it started (they share its session)."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_DEADLINE_S)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def wait_until_healthy(session: aiohttp.ClientSession, *, process: asyncio.subprocess.Process) -> None:
    """Raises BenchmarkError if the server ends, or does not answer in START_DEADLINE_S."""
    deadline_s = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline_s:
        if process.returncode is not None:
            raise BenchmarkError(f"the server ended with status {process.returncode} before it was healthy")
        try:
            async with session.get("/health", timeout=aiohttp.ClientTimeout(total=5)) as response:
                if response.status == 200:
                    return
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(0.5)
    raise BenchmarkError(f"the server was not healthy after {START_DEADLINE_S:.0f} s")


@asynccontextmanager
async def serving(
    variant: Variant, *, engine_python: Path
) -> AsyncIterator[tuple[aiohttp.ClientSession, int]]:
    """A server of stock vLLM for `variant`: a client bound to it, and the id of its process session."""
    port = free_port()
    command = [str(engine_python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(variant.model_dir), "--served-model-name", SERVED_NAME]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--dtype", variant.dtype]
    command += ["--kv-cache-dtype", variant.kv_cache_dtype, "--no-enable-prefix-caching"]
    command += ["--max-model-len", str(MAX_MODEL_TOKENS), "--max-num-batched-tokens", str(MAX_BATCHED_TOKENS)]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",  # ours start only under `paceline-runtime serve`
    }
    with tempfile.NamedTemporaryFile(prefix="paceline-quantized-", suffix=".log") as log:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=log, stderr=asyncio.subprocess.STDOUT, start_new_session=True
        )
        try:
            async with aiohttp.ClientSession(
                f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=REQUEST_DEADLINE_S)
            ) as session:
                await wait_until_healthy(session, process=process)
                yield session, process.pid
        except Exception:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-12000:])
            raise
        finally:
            await stop(process)


async def stream(session: aiohttp.ClientSession, *, prompt: str, output_tokens: int) -> Answer:
    """One streamed completion, read to its end; exactly `output_tokens` long, so that variants compare."""
    body = {
        "model": SERVED_NAME,
        "prompt": prompt,
        "max_tokens": output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first_s = counted_tokens = None
    started_s = time.perf_counter()
    async with session.post("/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            chunk = json.loads(line.removeprefix(b"data: "))
            if first_s is None and chunk.get("choices"):
                first_s = time.perf_counter()
            if chunk.get("usage"):
                counted_tokens = int(chunk["usage"]["completion_tokens"])
    if first_s is None or counted_tokens != output_tokens:
        raise BenchmarkError(f"asked for {output_tokens} tokens, the stream carried {counted_tokens}")
    return Answer(time_to_first_token_s=first_s - started_s, output_tokens=counted_tokens)


async def closed_loop(
    session: aiohttp.ClientSession, *, prompts: Sequence[str], streams: int, output_tokens: int
) -> list[Answer]:
    """Each of `streams` clients takes every `streams`-th prompt and sends one as the last one ends."""

    async def client(own: Sequence[str]) -> list[Answer]:
        return [await stream(session, prompt=prompt, output_tokens=output_tokens) for prompt in own]

    answers = await asyncio.gather(*(client(prompts[start::streams]) for start in range(streams)))
    return [answer for of_one in answers for answer in of_one]


async def text_logprobs(session: aiohttp.ClientSession, *, text: str) -> tuple[float, ...]:
    """The natural log-probability of each token of `text` but the first, given all before it."""
    body = {"model": SERVED_NAME, "prompt": text, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    async with session.post("/v1/completions", json=body) as response:
        response.raise_for_status()
        answer = await response.json()
    first, *rest = answer["choices"][0]["prompt_logprobs"]
    if first is not None or any(len(token) != 1 for token in rest):
        raise BenchmarkError("prompt_logprobs is not one entry per token after an empty first")
    return tuple(float(entry["logprob"]) for token in rest for entry in token.values())


async def kv_cache_tokens(session: aiohttp.ClientSession) -> int:
    async with session.get("/metrics") as response:
        response.raise_for_status()
        text = await response.text()
    for family in text_string_to_metric_families(text):
        if family.name == "vllm:cache_config_info":
            labels = family.samples[0].labels
            return int(labels["num_gpu_blocks"]) * int(labels["block_size"])
    raise BenchmarkError("/metrics has no vllm:cache_config_info")


def prompts_of(text: str, *, count: int) -> list[str]:
    """`count` stretches of PROMPT_WORDS words, spread evenly over `text`."""
    words = text.split()
    step = (len(words) - PROMPT_WORDS) / (count - 1)
    return [" ".join(words[int(i * step) : int(i * step) + PROMPT_WORDS]) for i in range(count)]


async def measure(variant: Variant, *, engine_python: Path, text: str) -> Measurement:
    async with serving(variant, engine_python=engine_python) as (session, server_session):
        await closed_loop(session, prompts=prompts_of(text, count=16), streams=16, output_tokens=8)
        before = CpuClock.read(server_session=server_session)
        one = await closed_loop(
            session,
            prompts=prompts_of(text, count=ONE_STREAM_REQUESTS),
            streams=1,
            output_tokens=TTFT_OUTPUT_TOKENS,
        )
        eight = await closed_loop(
            session,
            prompts=prompts_of(text, count=8 * EIGHT_STREAMS_REQUESTS_EACH),
            streams=8,
            output_tokens=TTFT_OUTPUT_TOKENS,
        )
        started_s = time.perf_counter()
        sixteen = await closed_loop(
            session,
            prompts=prompts_of(text, count=16),
            streams=16,
            output_tokens=SIXTEEN_STREAMS_OUTPUT_TOKENS,
        )
        elapsed_s = time.perf_counter() - started_s
        foreign = CpuClock.read(server_session=server_session).foreign_cores_since(before)
        return Measurement(
            ttft_1_stream_ms=1e3 * statistics.median(a.time_to_first_token_s for a in one),
            ttft_8_streams_ms=1e3 * statistics.median(a.time_to_first_token_s for a in eight),
            throughput_16_streams_tokens_per_s=sum(a.output_tokens for a in sixteen) / elapsed_s,
            kv_cache_tokens=await kv_cache_tokens(session),
            token_logprobs=await text_logprobs(session, text=text),
            foreign_cores=foreign,
        )


Rounds = Sequence[Sequence[Measurement]]
"""By round, then by variant in the order of the columns."""


def row(title: str, *, rounds: Rounds, value: Callable[[Measurement], float], digits: int) -> str:
    """Medians over the rounds, and the median of the ratios to the first variant in the same round."""
    cells = []
    for column in range(len(rounds[0])):
        median = statistics.median(value(one[column]) for one in rounds)
        ratios = [value(one[column]) / value(one[0]) for one in rounds]
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        cells.append(f"{median:,.{digits}f}" + (f" ({spread})" if column else ""))
    return f"| {title} | " + " | ".join(cells) + " |"


def perplexity_row(rounds: Rounds) -> str:
    """Perplexity of the first round, and its ratio with a 95 % interval over the tokens, paired."""
    baseline = rounds[0][0]
    cells = [f"{baseline.perplexity:.3f}"]
    for other in rounds[0][1:]:
        losses = [b - o for b, o in zip(baseline.token_logprobs, other.token_logprobs, strict=True)]
        mean = statistics.fmean(losses)
        half = 1.96 * statistics.stdev(losses) / math.sqrt(len(losses))
        interval = f"{math.exp(mean):.3f} [{math.exp(mean - half):.3f}, {math.exp(mean + half):.3f}]"
        cells.append(f"{other.perplexity:.3f} ({interval})")
    return "| Perplexity | " + " | ".join(cells) + " |"


def table(variants: Sequence[Variant], *, rounds: Rounds) -> str:
    sizes = [checkpoint_bytes(variant.model_dir) for variant in variants]
    size_cells = [f"{sizes[0] / 1e6:.1f}"] + [f"{s / 1e6:.1f} ({s / sizes[0]:.2f})" for s in sizes[1:]]
    drift = max(
        abs(one.perplexity - first.perplexity)
        for measured in rounds
        for one, first in zip(measured, rounds[0], strict=True)
    )
    return "\n".join(
        [
            "| | " + " | ".join(variant.name for variant in variants) + " |",
            "| --- |" + " --- |" * len(variants),
            "| Checkpoint on disk, MB | " + " | ".join(size_cells) + " |",
            row(
                f"KV cache in {KV_CACHE_GIB} GiB, tokens",
                rounds=rounds,
                value=lambda one: float(one.kv_cache_tokens),
                digits=0,
            ),
            row("TTFT, 1 stream, ms", rounds=rounds, value=lambda one: one.ttft_1_stream_ms, digits=0),
            row("TTFT, 8 streams, ms", rounds=rounds, value=lambda one: one.ttft_8_streams_ms, digits=0),
            row(
                "Output at 16 streams, tokens/s",
                rounds=rounds,
                value=lambda one: one.throughput_16_streams_tokens_per_s,
                digits=0,
            ),
            perplexity_row(rounds),
            "",
            f"Rounds: {len(rounds)}; medians, in brackets the ratio to {variants[0].name} in the same round"
            " and its [least, greatest]; for perplexity the ratio over"
            f" {len(rounds[0][0].token_logprobs)} tokens and its 95 % interval."
            f" Perplexity differed by at most {drift:.4f} between rounds.",
        ]
    )


async def run(variants: Sequence[Variant], *, engine_python: Path, round_count: int) -> str:
    text = TEXT.read_text(encoding="utf-8").strip()
    load_before = os.getloadavg()[0]
    rounds: list[list[Measurement]] = []
    for number in range(round_count):
        measured: dict[str, Measurement] = {}
        for offset in range(len(variants)):
            variant = variants[(number + offset) % len(variants)]
            started_s = time.monotonic()
            measured[variant.name] = one = await measure(variant, engine_python=engine_python, text=text)
            print(
                f"round {number + 1}/{round_count} {variant.name}: {time.monotonic() - started_s:.0f} s,"
                f" foreign load {one.foreign_cores:.2f} cores, TTFT {one.ttft_1_stream_ms:.0f} ms and"
                f" {one.ttft_8_streams_ms:.0f} ms, {one.throughput_16_streams_tokens_per_s:.0f} tokens/s,"
                f" perplexity {one.perplexity:.3f}",
                file=sys.stderr,
                flush=True,
            )
        rounds.append([measured[variant.name] for variant in variants])
    foreign = [one.foreign_cores for measured in rounds for one in measured]
    return (
        f"{table(variants, rounds=rounds)} Load average before the start {load_before:.2f}; while timed, other"
        f" processes used {statistics.median(foreign):.2f} of {os.cpu_count()} cores (median; {min(foreign):.2f}"
        f" to {max(foreign):.2f})."
    )


def main() -> int:
    cache = Path(os.environ.get("PACELINE_CACHE", Path.home() / ".cache" / "paceline"))
    models = cache / "models"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine-python", type=Path, required=True, help="interpreter that has vLLM")
    parser.add_argument("--bf16", type=Path, default=models / "smollm2-135m-instruct")
    parser.add_argument("--int8", type=Path, default=models / "smollm2-135m-instruct-int8")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    # As the launcher serves it on this machine: without instructions for 16-bit floats it computes in 32 bits.
    bf16 = (
        Variant("BF16", args.bf16, "auto")
        if computes_bf16()
        else Variant("BF16, computed in float32", args.bf16, "auto", dtype="float32")
    )
    variants = [
        bf16,
        Variant("INT8", args.int8, "auto"),
    ]
    if {"avx512f", "amx_tile"} & set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split()):
        variants.append(Variant("INT8 + FP8 KV", args.int8, "fp8"))
    else:
        print("INT8 + FP8 KV is left out: vLLM needs AVX-512 or AMX for it.", file=sys.stderr)
    print(asyncio.run(run(variants, engine_python=args.engine_python, round_count=args.rounds)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
