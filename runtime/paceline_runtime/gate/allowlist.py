"""Which requests may leave the gate towards the router.

`vllm-router` answers admin routes on the port it serves from and passes every route it does not know to an
engine, so a client that reaches it can remove workers or drain a pod. The proxy asks this list first. A
request target is compared byte for byte: nothing is decoded or normalised, so no spelling of another route
can become one of these, and what is sent on is the path from this list, never the client's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the OpenAI API that a service answers."""

    method: Literal["GET", "POST"]
    path: str


ROUTES: Final = (
    Route(method="GET", path="/v1/models"),
    Route(method="POST", path="/v1/chat/completions"),
    Route(method="POST", path="/v1/completions"),
    Route(method="POST", path="/v1/embeddings"),
    Route(method="POST", path="/v1/responses"),
)
"""Left out: reading or cancelling a stored response (it lives in one engine's memory, and the router asks
all of them) and uploads (the router takes JSON bodies only)."""

_BY_TARGET: Final = {(route.method, route.path): route for route in ROUTES}


def match(method: str, *, target: str) -> Route | None:
    """The route that `target`, the request target as it came over the wire, names; None where there is none.

    A query string is let pass and not sent on: no route of the list has one.
    """
    return _BY_TARGET.get((method, target.partition("?")[0]))  # type: ignore[arg-type]
