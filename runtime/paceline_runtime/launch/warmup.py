"""Requests that the launcher sends before anyone else may: what is made on first use is made by them.

Sent over loopback through the whole server (tokenizer, chat template, prefill, decode, stream), while the
pod's phase is `loading`, so that they are in no count. Standard library only: the launcher stays small
beside the engine.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from paceline_core import canary
from paceline_runtime.launch.failure import StartFailure

_TIMEOUT_S = 600.0
"""The first request may compile kernels."""
_POLL_S = 0.25

_SPEED_TOKENS, _SPEED_RUNS = 17, 3
"""The fastest of so many answers: what else the machine does meanwhile makes none of them faster."""


class LoopbackServer:
    """The server that this pod runs, as its own client."""

    def __init__(self, *, host: str, port: int, model: str) -> None:
        self._host = "127.0.0.1" if host == "0.0.0.0" else host
        self._port = port
        self._model = model

    def wait_until_it_answers(self, *, alive: Callable[[], bool]) -> bool:
        """False if the process ended before."""
        while alive():
            try:
                if self._ask("GET", "/health", timeout_s=5.0) == 200:
                    return True
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(_POLL_S)
        return False

    def warm_up(self, *, max_prompt_tokens: int) -> None:
        """Raises StartFailure if a request that the server should answer fails."""
        for path, body in self._requests(max_prompt_tokens=max_prompt_tokens):
            try:
                status = self._ask("POST", path, body, timeout_s=_TIMEOUT_S)
            except (OSError, http.client.HTTPException) as error:
                raise StartFailure(f"a warm-up request broke off: {error!r}", stage="warmup") from error
            # A model without a chat template, or one that generates nothing, refuses some of them: 4xx.
            if status >= 500:
                raise StartFailure(f"a warm-up request to {path} was answered {status}", stage="warmup")

    def log_probabilities(self) -> tuple[float, ...] | None:
        """Of the tokens of the canary's texts, in nats. None where the server does not tell them: a model that
        generates nothing, or a limit on log-probabilities.

        Raises StartFailure if a request that the server should answer fails."""
        found: list[float] = []
        for text in canary.TEXTS:
            body = {
                "model": self._model,
                "prompt": text,
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": 0,
            }
            try:
                status, answer = self._exchange("POST", "/v1/completions", body, timeout_s=_TIMEOUT_S)
            except (OSError, http.client.HTTPException) as error:
                raise StartFailure(f"the canary broke off: {error!r}", stage="warmup") from error
            if status >= 500:
                raise StartFailure(f"the canary was answered {status}", stage="warmup")
            if status != 200:
                return None
            tokens = json.loads(answer)["choices"][0].get("prompt_logprobs")
            if tokens is None:
                return None
            # The first token has none before it. With prompt_logprobs 0 each has an entry for itself alone.
            found += [entry["logprob"] for token in tokens if token for entry in token.values()]
        return tuple(round(one, 3) for one in found)

    def token_s(self) -> float | None:
        """Seconds from one token to the next of one request, while there is no other. None where they do not come one by
        one, or the model generates nothing.

        Raises StartFailure if the answer breaks off."""
        try:
            runs = [self._timed_answer() for _ in range(_SPEED_RUNS)]
        except (OSError, http.client.HTTPException) as error:
            raise StartFailure(f"the canary broke off: {error!r}", stage="warmup") from error
        known = [one for one in runs if one is not None]
        return min(known) if known else None

    def _timed_answer(self) -> float | None:
        body = {
            "model": self._model,
            "prompt": "warm",
            "max_tokens": _SPEED_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        with self._answer("POST", "/v1/completions", body, timeout_s=_TIMEOUT_S) as answer:
            came_s = [time.monotonic() for line in answer if line.startswith(b"data: {")]
        if answer.status != 200 or len(came_s) < _SPEED_TOKENS:
            return None
        return (came_s[_SPEED_TOKENS - 1] - came_s[0]) / (_SPEED_TOKENS - 1)

    def _requests(self, *, max_prompt_tokens: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """A prompt of one word, one of some length (prefill), and a streamed chat."""
        base = {"model": self._model, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        words = "warm " * min(128, max(1, max_prompt_tokens // 4))
        for prompt in ("warm", words):
            yield "/v1/completions", base | {"prompt": prompt}
        message = {"role": "user", "content": "Say one word."}
        yield "/v1/chat/completions", base | {"messages": [message], "stream": True}

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float) -> int:
        return self._exchange(method, path, body, timeout_s=timeout_s)[0]

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float
    ) -> tuple[int, bytes]:
        with self._answer(method, path, body, timeout_s=timeout_s) as answer:
            return answer.status, answer.read()

    @contextmanager
    def _answer(
        self, method: str, path: str, body: dict[str, Any] | None, *, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        """As soon as its head has come."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            headers = {"content-type": "application/json"} if body else {}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            yield connection.getresponse()
        finally:
            connection.close()
