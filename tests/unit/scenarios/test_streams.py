"""Streams are counted by the pods that have them, and a pod that cannot be asked makes the count unknown."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from e2e.scenarios.streams import PORT, Moves, in_flight, least, taken

Pod = dict[str, Any]


@contextmanager
def pod(uid: str, *, flying: int, ended: int) -> Iterator[Pod]:
    """One that serves its metrics, at an address of its own."""
    page = (
        f"# HELP paceline_requests_in_flight Requests.\npaceline_requests_in_flight {flying}.0\n"
        f'paceline_requests_total{{latency_class="all",outcome="good"}} {ended - 1}.0\n'
        'paceline_requests_total{latency_class="all",outcome="late"} 1.0\n'
        "vllm:num_requests_running 99.0\n"
    )

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    address = f"127.{random.randint(10, 250)}.{random.randint(1, 250)}.1"
    with ThreadingHTTPServer((address, PORT), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"metadata": {"uid": uid}, "status": {"podIP": address}}
        server.shutdown()


def leaving(one: Pod) -> Pod:
    return {**one, "metadata": {**one["metadata"], "deletionTimestamp": "2026-11-27T12:00:00Z"}}


def gone(uid: str) -> Pod:
    return {"metadata": {"uid": uid}, "status": {"podIP": "127.9.9.9"}}


@pytest.fixture
def busy() -> Iterator[Pod]:
    with pod("busy", flying=23, ended=40) as one:
        yield one


@pytest.fixture
def calm() -> Iterator[Pod]:
    with pod("calm", flying=4, ended=7) as one:
        yield one


def test_a_pod_tells_what_is_in_flight_and_what_it_was_sent(busy: Pod, calm: Pod) -> None:
    assert (in_flight(busy), taken(busy)) == (23, 63)
    assert least([busy, calm]) == 4
    assert least([]) is None


def test_one_that_does_not_answer_is_unknown_and_not_empty(busy: Pod) -> None:
    assert in_flight(gone("x")) is None
    assert in_flight({"metadata": {"uid": "new"}, "status": {}}) is None
    assert least([busy, gone("x")]) is None
    assert Moves([busy, gone("x")]).streams("staying", now=[]) is None


def test_a_pod_that_leaves_counts_from_when_it_began_to(busy: Pod, calm: Pod) -> None:
    moves = Moves([busy, calm])
    moves.look([busy, calm])
    assert moves.streams("leaving", now=[]) is None
    moves.look([leaving(busy), calm])
    moves.look([calm])
    assert moves.streams("leaving", now=[calm]) == 23
    assert moves.longest_drain_s is not None


def test_a_pod_that_comes_counts_with_all_that_it_was_sent(busy: Pod, calm: Pod) -> None:
    moves = Moves([calm])
    moves.look([calm, busy])
    assert moves.streams("coming", now=[calm, busy]) == 63
    assert moves.streams("staying", now=[calm, busy]) == 4
