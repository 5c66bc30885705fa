"""The demo calls an answer an answer only when the stream came to its proper end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from e2e.demo.question import NoAnswer, ask

Serve = Callable[..., str]
HELLO = {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
PARIS = {"choices": [{"delta": {"content": "Paris"}, "finish_reason": None}]}
STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
ERROR = {"error": {"message": "engine died", "code": 500}}


def event(body: object) -> str:
    return f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server on localhost that answers any completion with these events and then closes."""
    servers: list[ThreadingHTTPServer] = []

    def serve(*events: object) -> str:
        class Endpoint(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.write("".join(event(body) for body in events).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def question(url: str, show: Callable[[str], None] = lambda piece: None) -> str:
    return ask(url, model="m", question="?", max_tokens=8, timeout_s=5, show=show).text


def test_an_answer_is_shown_as_it_comes_and_returned_whole(serve: Serve) -> None:
    shown: list[str] = []
    assert question(serve(HELLO, PARIS, PARIS, STOP, "[DONE]"), shown.append) == "ParisParis"
    assert shown == ["Paris", "Paris"]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((HELLO, PARIS), id="cut-off"),
        pytest.param((HELLO, PARIS, STOP), id="no-done"),
        pytest.param((HELLO, PARIS, "[DONE]"), id="no-finish-reason"),
        pytest.param((HELLO, STOP, "[DONE]"), id="no-token-at-all"),
        pytest.param((HELLO, PARIS, ERROR, "[DONE]"), id="error-after-200"),
    ],
)
def test_a_stream_that_does_not_end_well_is_no_answer(serve: Serve, events: tuple[object, ...]) -> None:
    with pytest.raises(NoAnswer):
        question(serve(*events))
