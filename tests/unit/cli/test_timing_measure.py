"""`paceline timing measure` against an engine at the outer edge: its rows are those that `check` reads, or none."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from paceline.cli.timing import timing
from paceline.cli.timing_check import read_rows

FIRST_S, NEXT_S = 0.05, 0.01


@dataclass
class Engine:
    """Answers each request with `short` tokens fewer than asked, at a pace that is known."""

    short: int = 0
    status: int = 200
    error_after: int | None = None
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0
    prompts: list[list[int]] = field(default_factory=list)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert body["model"] == "m"
        assert body["ignore_eos"]
        assert body["stream"]
        if self.status != 200:
            return web.Response(status=self.status, text="the queue is full")
        self.prompts.append(body["prompt"])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        response = web.StreamResponse()
        await response.prepare(request)
        tokens = body["max_tokens"] - self.short
        for number in range(tokens):
            await asyncio.sleep(NEXT_S if number else FIRST_S)
            if number == self.error_after:
                await response.write(b'data: {"error": {"message": "engine died"}}\n\n')
                return response
            await response.write(_event({"choices": [{"text": "x"}]}))
        await response.write(_event({"choices": [], "usage": {"completion_tokens": tokens}}))
        await response.write(b"data: [DONE]\n\n")
        self.at_once -= 1
        return response


def _event(body: object) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()


@contextmanager
def serving(engine: Engine) -> Iterator[Engine]:
    loop = asyncio.new_event_loop()

    async def start() -> None:
        app = web.Application()
        app.router.add_get("/v1/models", engine.models)
        app.router.add_post("/v1/completions", engine.complete)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        engine.url = f"http://{host}:{port}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield engine
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def measure(engine: Engine, out: Path, *concurrency: int) -> Result:
    clients = [arg for one in concurrency for arg in ("--concurrency", str(one))]
    named = ["--model", "llama-3.1-8b", "--format", "bf16", "--gpu", "h200", "--tp", "1"]
    sizes = ["--prompt-tokens", "40", "--output-tokens", "6"]
    command = ["measure", "--url", engine.url, *named, *sizes, *clients, "--out", str(out)]
    return CliRunner().invoke(timing, command)


def test_rows_are_those_that_check_reads(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    with serving(Engine()) as engine:
        result = measure(engine, out, 1, 3)
    assert result.exit_code == 0, result.output
    one, three = read_rows(out.read_text().splitlines())
    assert (one.concurrency, three.concurrency) == (1, 3)
    assert (one.model, one.format, one.gpu, one.tp) == ("llama-3.1-8b", "bf16", "h200", 1)
    for row in (one, three):
        # A sleep never ends early; how late it ends is the machine's.
        assert row.ttft_ms >= 1000 * FIRST_S
        assert row.tpot_ms >= 0.99 * 1000 * NEXT_S
    assert engine.most_at_once == 3
    assert len(engine.prompts) == 10 + 30
    assert all(32 <= len(prompt) <= 40 for prompt in engine.prompts)
    assert len({tuple(prompt) for prompt in engine.prompts[10:]}) == 30


def test_more_rows_are_added_to_the_file(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    with serving(Engine()) as engine:
        measure(engine, out, 1)
        measure(engine, out, 2)
    assert [row.concurrency for row in read_rows(out.read_text().splitlines())] == [1, 2]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Engine(short=1), "and answered with"),
        (Engine(status=429), "answered 429: the queue is full"),
        (Engine(error_after=2), "engine died"),
    ],
)
def test_no_row_of_an_engine_that_does_not_answer_in_full(
    engine: Engine, message: str, tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    with serving(engine):
        result = measure(engine, out, 2)
    assert result.exit_code == 1
    assert message in result.output
    assert not out.exists()


def test_nothing_there(tmp_path: Path) -> None:
    result = measure(Engine(url="http://127.0.0.1:9"), tmp_path / "rows.csv", 1)
    assert result.exit_code == 1
    assert "/v1/models named no model" in result.output
