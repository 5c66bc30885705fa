"""What the gates say when they are asked, beside Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from paceline.metrics import Gates, pod_pages
from paceline.planner import Door
from paceline_runtime.gate.metrics import Metrics
from tests.unit.metrics.readings import APod, gate


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The page of each gate by its address; an address without a page answers 404."""
    found: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = found.get(str(self.connection.getsockname()[0]), b"")
            self.send_response(200 if body and self.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with ExitStack() as stack:
        port = 0
        for number in (2, 3):
            server = stack.enter_context(ThreadingHTTPServer((f"127.0.0.{number}", port), Handler))
            port = server.server_address[1]
            Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        monkeypatch.setattr(pod_pages, "GATE_OPS_PORT", port)
        yield found


def page(*, held: int, in_flight: int, arrivals: int) -> bytes:
    metrics = Metrics()
    metrics.held_requests.set(held)
    metrics.in_flight.set(in_flight)
    metrics.arrivals.inc(arrivals)
    return metrics.text()


async def ask(*pods: APod) -> dict[str, Door | None]:
    gates = Gates()
    try:
        return await gates.ask(pods)
    finally:
        await gates.close()


async def test_every_ready_gate_is_asked_and_nobody_else(pages: dict[str, bytes]) -> None:
    pages["127.0.0.2"] = page(held=3, in_flight=4, arrivals=9)
    pages["127.0.0.3"] = page(held=0, in_flight=0, arrivals=0)
    found = await ask(
        gate("a", ip="127.0.0.2"),
        gate("b", ip="127.0.0.3"),
        gate("starting", ip="127.0.0.2", ready=False),
        gate("leaving", ip="127.0.0.2", deleting=True),
        APod(name="engine", ip="127.0.0.2"),
    )
    assert found == {
        "a": Door(held=3, in_flight=4, arrivals=9),
        "b": Door(held=0, in_flight=0, arrivals=0),
    }


@pytest.mark.parametrize(
    ("ip", "body"),
    [
        pytest.param("127.0.0.9", b"", id="takes no connection"),
        pytest.param(None, b"", id="has no address"),
        pytest.param("127.0.0.2", b"", id="has no page"),
        pytest.param("127.0.0.2", b"paceline_gate_held_requests 0\n", id="says less than a gate"),
        pytest.param(
            "127.0.0.2",
            page(held=0, in_flight=0, arrivals=0).replace(b"held_requests 0.0", b"held_requests NaN"),
            id="says no number",
        ),
    ],
)
async def test_what_a_gate_does_not_say_is_unknown(
    pages: dict[str, bytes], ip: str | None, body: bytes
) -> None:
    pages["127.0.0.2"] = body
    assert await ask(gate("a", ip=ip)) == {"a": None}
