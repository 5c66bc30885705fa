"""What the launcher tells the server process: one variable of the environment, in JSON.

vLLM makes the plugins and the middleware itself, from their import paths, so nothing can be passed to them
as an argument. Written and read by the same version of this package: it is no interface for anyone else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "PACELINE_SERVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What /paceline/info says of the model. None is unknown."""

    uri: str
    revision: str | None
    attention_heads: int | None
    kv_heads: int | None
    weights_bytes: int | None


@dataclass(frozen=True, slots=True)
class RefusedLayout:
    order: str
    """As it was given."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    service: str
    model: ModelFacts
    tensor_parallel_size: int
    data_parallel_size: int
    refused_layout: RefusedLayout | None
    """The layout that this pod was last asked for and could not start in."""
    emulated: bool
    targets_path: Path
    admin_socket: Path
    max_request_s: float
    max_prompt_tokens: int | None
    """None where the model's own length is the limit: the server checks that by itself."""
    routers: str | None
    """DNS name whose addresses are the router pods; None where nobody routes to this process."""
    address: str | None
    """This pod as it stands in the routers' lists, ip:port."""

    def to_env(self) -> dict[str, str]:
        paths = {"targets_path": str(self.targets_path), "admin_socket": str(self.admin_socket)}
        return {VARIABLE: json.dumps(asdict(self) | paths)}

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ServerSettings:
        if VARIABLE not in environ:
            raise RuntimeError(f"{VARIABLE} is not set: start the server with `paceline-runtime serve`")
        fields = json.loads(environ[VARIABLE])
        fields["model"] = ModelFacts(**fields["model"])
        if (refused := fields["refused_layout"]) is not None:
            fields["refused_layout"] = RefusedLayout(**refused)
        fields["targets_path"] = Path(fields["targets_path"])
        fields["admin_socket"] = Path(fields["admin_socket"])
        return cls(**fields)
