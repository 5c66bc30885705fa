"""Facts of a model: from the table, from a Hub that answers, and unknown from everywhere else, in time."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from paceline.api import InferenceService
from paceline.controller import facts as module
from paceline.controller.api_client import ApiClient
from paceline.controller.errors import NotFound
from paceline.controller.facts import FactsSource
from paceline.controller.work_queue import ServiceKey

KEY = ServiceKey("ns", "chat")
COMMIT = "a" * 40
CONFIG = {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "num_hidden_layers": 32}


class HubServer:
    """As the Hub answers: a listing, files at a commit, ranges of a large file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"config.json": json.dumps(CONFIG).encode()}
        self.requests: list[tuple[str, str]] = []
        self.delay_s = 0.0

    async def listing(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, request.headers.get("Authorization", "")))
        await asyncio.sleep(self.delay_s)
        if request.match_info["name"] == "gated" and "Authorization" not in request.headers:
            return web.Response(status=401)
        return web.json_response({"sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]})

    async def file(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, request.headers.get("Authorization", "")))
        body = self.files[request.match_info["file"]]
        if (part := request.http_range) and part.stop is not None:
            return web.Response(status=206, body=body[part])
        return web.Response(body=body)


class Secrets:
    """Stands for the API client: one Secret, or none that may be read."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def get(self, resource: Any, *, namespace: str | None, name: str) -> dict[str, Any]:
        if self._token is None or (namespace, name) != ("ns", "hub"):
            raise NotFound("no such Secret", status=404, what="get")
        return {"data": {"token": base64.b64encode(self._token.encode()).decode()}}


@pytest.fixture
async def hub() -> AsyncIterator[tuple[HubServer, str]]:
    handler = HubServer()
    app = web.Application()
    app.router.add_get("/api/models/{org}/{name}/revision/{revision}", handler.listing)
    app.router.add_get("/{org}/{name}/resolve/{commit}/{file}", handler.file)
    async with TestServer(app) as running:
        yield handler, str(running.make_url(""))


class Source:
    """A source, and the news that it told."""

    def __init__(self, endpoint: str | None, *, token: str | None = None) -> None:
        self.news: asyncio.Queue[ServiceKey] = asyncio.Queue()
        client: ApiClient = Secrets(token)  # type: ignore[assignment]
        self.facts = FactsSource(client, hub_endpoint=endpoint, on_news=self.news.put_nowait)

    async def answer(self, service: InferenceService) -> Any:
        """Ask as the reconciler does: again when told, or when the patience has ended."""
        asked = self.facts.lookup(KEY, service)
        if asked.pending_s is None:
            return asked.facts
        assert await asyncio.wait_for(self.news.get(), 10) == KEY
        return self.facts.lookup(KEY, service).facts


def _service(uri: str, *, secret: str | None = None) -> InferenceService:
    model: dict[str, Any] = {"uri": uri}
    if secret is not None:
        model["secretRef"] = {"name": secret}
    return InferenceService.from_manifest(
        {
            "apiVersion": "paceline.dev/v1alpha1",
            "kind": "InferenceService",
            "metadata": {"name": "chat", "namespace": "ns"},
            "spec": {
                "model": model,
                "slo": {"preset": "Standard"},
                "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
            },
        }
    )


async def test_a_bundled_model_is_known_at_once() -> None:
    source = Source(None)
    found = source.facts.lookup(KEY, _service("bundled://smollm2-135m-instruct"))
    assert found.facts is not None
    assert (found.facts.attention_heads, found.facts.kv_heads) == (9, 3)
    await source.facts.close()


@pytest.mark.parametrize("uri", ["pvc://weights/llama", "s3://bucket/llama", "hf://org/model@main"])
async def test_what_cannot_be_reached_is_unknown_without_waiting(uri: str) -> None:
    source = Source(None)
    found = source.facts.lookup(KEY, _service(uri))
    assert found.facts is None
    assert found.pending_s is None
    await source.facts.close()


async def test_a_hub_model_is_read_once_and_kept(hub: tuple[HubServer, str]) -> None:
    server, url = hub
    server.files["model.safetensors.index.json"] = json.dumps({"metadata": {"total_size": 16_000}}).encode()
    source = Source(url)
    service = _service("hf://org/model@main")
    facts = await source.answer(service)
    assert (facts.attention_heads, facts.kv_heads, facts.weights_bytes) == (32, 8, 16_000)
    count = len(server.requests)
    assert source.facts.lookup(KEY, service).facts == facts
    assert len(server.requests) == count
    assert {path for path, _ in server.requests[1:]} == {
        f"/org/model/resolve/{COMMIT}/config.json",
        f"/org/model/resolve/{COMMIT}/model.safetensors.index.json",
    }
    await source.facts.close()


async def test_of_a_single_file_only_the_header_is_read(hub: tuple[HubServer, str]) -> None:
    server, url = hub
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
    server.files["model.safetensors"] = len(header).to_bytes(8, "little") + header + b"\0" * 12
    source = Source(url)
    assert (await source.answer(_service("hf://org/model@main"))).weights_bytes == 12
    await source.facts.close()


async def test_a_gated_model_is_read_with_the_token_of_its_secret(hub: tuple[HubServer, str]) -> None:
    source = Source(hub[1], token="s3cret")
    assert (await source.answer(_service("hf://org/gated@main", secret="hub"))) is not None
    assert {authorization for _, authorization in hub[0].requests} == {"Bearer s3cret"}
    await source.facts.close()


async def test_a_gated_model_without_a_readable_secret_is_unknown(hub: tuple[HubServer, str]) -> None:
    source = Source(hub[1], token=None)
    assert (await source.answer(_service("hf://org/gated@main", secret="hub"))) is None
    await source.facts.close()


async def test_facts_that_a_token_opened_are_not_shown_without_it(hub: tuple[HubServer, str]) -> None:
    source = Source(hub[1], token="s3cret")
    assert (await source.answer(_service("hf://org/gated@main", secret="hub"))) is not None
    assert (await source.answer(_service("hf://org/gated@main"))) is None
    await source.facts.close()


async def test_a_slow_hub_is_waited_for_only_so_long(
    hub: tuple[HubServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    hub[0].delay_s = 1.0
    source = Source(hub[1])
    service = _service("hf://org/model@main")
    assert (source.facts.lookup(KEY, service).pending_s or 0) > 0
    await asyncio.sleep(0.25)
    late = source.facts.lookup(KEY, service)
    assert (late.facts, late.pending_s) == (None, None)
    # The answer still counts when it comes.
    await asyncio.wait_for(source.news.get(), 5)
    assert source.facts.lookup(KEY, service).facts is not None
    await source.facts.close()


async def test_a_hub_that_cannot_be_reached_delays_only_the_first_service() -> None:
    source = Source("http://127.0.0.1:1")
    assert (await source.answer(_service("hf://org/model@main"))) is None
    since_s = time.monotonic()
    other = source.facts.lookup(KEY, _service("hf://org/other@main"))
    assert (other.facts, other.pending_s) == (None, None)
    assert time.monotonic() - since_s < 0.1
    await source.facts.close()


async def test_an_answer_without_an_end_is_cut(
    hub: tuple[HubServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.controller.hub.CONFIG_LIMIT_BYTES", 1000)
    hub[0].files["config.json"] = b" " * 2000 + hub[0].files["config.json"]
    source = Source(hub[1])
    assert (await source.answer(_service("hf://org/model@main"))) is None
    await source.facts.close()
