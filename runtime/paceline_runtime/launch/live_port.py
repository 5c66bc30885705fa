"""The launcher's own word for the liveness probe, on a port of its own.

While a pod starts its engine anew in another layout, nobody listens on the serving port, for minutes: a probe there
would have the kubelet end the container in the middle of it. Once the engine serves, its own word is passed on.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ENGINE_WITHIN_S = 8.0
"""The kubelet waits for 10 s."""


def serve_liveness(*, host: str, port: int, engine_port: int, is_serving: Callable[[], bool]) -> None:
    """In a thread, for as long as the process lives. Raises OSError where the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = (404, b"{}") if self.path != "/live" else self._live()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _live(self) -> tuple[int, bytes]:
            if not is_serving():
                return 200, json.dumps({"starting": True}).encode()
            engine = "127.0.0.1" if host == "0.0.0.0" else host
            connection = http.client.HTTPConnection(engine, engine_port, timeout=_ENGINE_WITHIN_S)
            try:
                connection.request("GET", "/live")
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                return 503, json.dumps({"error": repr(error)}).encode()
            finally:
                connection.close()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="live", daemon=True).start()
