"""Only OpenAI routes leave the gate, however another route is spelled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.processes import Stack, stack

ROUTER_ROUTES = (
    "/add_worker",
    "/remove_worker",
    "/list_workers",
    "/flush_cache",
    "/get_loads",
    "/workers",
    "/workers/http%3A%2F%2F127.0.0.1%3A8000",
    "/liveness",
    "/readiness",
    "/health",
    "/health_generate",
    "/get_model_info",
    "/get_server_info",
    "/generate",
    "/v1/generate",
    "/inference/v1/generate",
    "/rerank",
    "/v1/rerank",
    "/v1/responses/resp_1",
    "/v1/responses/resp_1/cancel",
    "/v1/responses/resp_1/input",
    "/v1/completions/render",
    "/v1/responses/render",
    "/scheduling/diagnostics",
    "/finish_session",
)
"""Everything that vllm-router 0.1.17 routes besides the allowed ones; its fallback passes POSTs to a worker."""

ENGINE_ROUTES = (
    "/drain",
    "/state",
    "/targets",
    "/metrics",
    "/ready",
    "/live",
    "/ping",
    "/load",
    "/version",
    "/paceline/info",
    "/server_info",
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/pause",
    "/resume",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/start_profile",
    "/stop_profile",
    "/load_lora_adapter",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/scale_elastic_ep",
    "/update_weights",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    "/invocations",
    "/pooling",
    "/classify",
    "/score",
    "/v1/score",
    "/v1/audio/transcriptions",
    "/docs",
    "/openapi.json",
)

SPELLINGS = (
    "//{0}",
    "/./{0}",
    "/{0}/",
    "/{0};x",
    "/{0}%00",
    "/{0}%2f",
    "/%2f{0}",
    "/v1/models/../{0}",
    "/v1/models/..;/{0}",
    "/v1/models/%2e%2e/{0}",
    "/v1/models/%2e%2e%2f{0}",
    "/v1/models%2f..%2f{0}",
    "/v1/models/..%252f{0}",
    "/v1/models\\..\\{0}",
    "/v1/chat/completions/../../../{0}",
    "/v1/models?/../{0}x",
    "http://127.0.0.1:8010/{0}",
    "//127.0.0.1:8010/{0}",
    "{0}",
)

ALLOWED_SPELLED_ODDLY = (
    "/V1/models",
    "/v1/Models",
    "/v1/models/",
    "//v1/models",
    "/v1//models",
    "/v1/./models",
    "/v1/%6dodels",
    "/v1%2fmodels",
    "/v1/models%20",
    "/v1/models;a=b",
    "/v1/models%3f",
    "/v1/models/m",
    "http://127.0.0.1/v1/models",
)

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get")


async def raw(port: int, *, method: str, target: str) -> int:
    """The status of a request written by hand: a client library would tidy the target."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode("latin-1") + body)
    try:
        async with asyncio.timeout(10):
            line = await reader.readline()
        return int(line.split(b" ")[1])
    finally:
        writer.close()


async def statuses(stack: Stack, *, method: str, targets: list[str]) -> dict[str, int]:
    return {target: await raw(stack.port, method=method, target=target) for target in targets}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_no_admin_or_engine_route_is_reached(
    tmp_path: Path, start_worker: StartWorker, method: str
) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        plain = [*ROUTER_ROUTES, *ENGINE_ROUTES]
        query = [f"{route}?url=http://{worker.address}" for route in plain]
        upper = [route.upper() for route in plain]
        odd = [spelling.format(route[1:]) for route in plain for spelling in SPELLINGS]
        found = await statuses(served, method=method, targets=[*plain, *query, *upper, *odd])
        # `/v1/models?…` is the allowed route with a query; the target is refused before where it is no HTTP.
        let_through = {target for target, status in found.items() if status not in (400, 404)}
        assert let_through <= (
            {t for t in found if t.startswith("/v1/models?")} if method == "GET" else set()
        )
        assert await served.listed() == {worker.address}
    assert set(worker.seen) <= {"GET /v1/models"}


async def test_an_allowed_route_has_one_spelling_and_one_method(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        oddly = await statuses(served, method="GET", targets=list(ALLOWED_SPELLED_ODDLY))
        assert set(oddly.values()) <= {400, 404}
        by_method = {m: await raw(served.port, method=m, target="/v1/models") for m in METHODS}
        assert {m for m, status in by_method.items() if status not in (400, 404)} == {"GET"}
        assert worker.seen == ["GET /v1/models"]
        async with served.session.get(f"{served.url}/add_worker") as response:
            error = (await response.json())["error"]
            assert response.status == 404
            assert error["type"] == "invalid_request_error"


async def test_the_ops_port_changes_nothing(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for path in ("/workers", "/drain", "/readyz", "/metrics", "/remove_worker", "/v1/models"):
                async with served.session.request(method, served.ops_url + path) as response:
                    assert response.status in (404, 405), (method, path)
        async with served.session.get(f"{served.ops_url}/workers") as response:
            assert await response.json() == {"workers": [worker.address]}
        assert await served.ready() == 200
