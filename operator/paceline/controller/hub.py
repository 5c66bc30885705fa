"""Facts of a checkpoint from the Hugging Face Hub over HTTPS: its config and the head of its weights, never
the weights.

Used by `facts`. Every answer is bounded in size and time. Anything that does not work out is `HubError`;
the caller treats it as unknown.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import aiohttp

from paceline.controller.errors import ControllerError
from paceline_core.checkpoint import (
    CheckpointFacts,
    file_format_of,
    weights_bytes_of_header,
    weights_bytes_of_index,
)
from paceline_core.uri import HubUri

CONFIG_LIMIT_BYTES = 2**20
LISTING_LIMIT_BYTES = 8 * 2**20
INDEX_LIMIT_BYTES = 32 * 2**20
"""A trillion parameters in experts list some hundred thousand tensors."""

HEADER_LIMIT_BYTES = 8 * 2**20

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"


class HubError(ControllerError):
    """The Hub has no answer that helps."""


class HubUnreachable(HubError):
    """No way there at all: other models will not fare better for now."""


class Hub:
    def __init__(self, endpoint: str, *, timeout_s: float) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            trust_env=True,
            headers={"User-Agent": "paceline-operator"},
        )

    async def close(self) -> None:
        await self._session.close()

    async def read(self, uri: HubUri, *, token: str | None) -> CheckpointFacts:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return await self._read(uri, headers)
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise HubUnreachable(f"{self._endpoint}: {error or type(error).__name__}") from error
        except (aiohttp.ClientError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise HubError(f"{uri}: {error}") from error

    async def _read(self, uri: HubUri, headers: dict[str, str]) -> CheckpointFacts:
        listing = await self._json(
            f"/api/models/{uri.repo}/revision/{quote(uri.revision, safe='')}", headers, LISTING_LIMIT_BYTES
        )
        commit = str(listing["sha"])
        names = [str(one["rfilename"]) for one in listing.get("siblings") or ()]
        files = f"/{uri.repo}/resolve/{commit}/"
        config = await self._json(files + CONFIG, headers, CONFIG_LIMIT_BYTES) if CONFIG in names else None
        weights_bytes: int | None = None
        if INDEX in names:
            weights_bytes = weights_bytes_of_index(
                await self._json(files + INDEX, headers, INDEX_LIMIT_BYTES)
            )
        elif SINGLE in names:
            weights_bytes = weights_bytes_of_header(await self._header(files + SINGLE, headers))
        return CheckpointFacts.parse(config, weights_bytes=weights_bytes, file_format=file_format_of(names))

    async def _header(self, path: str, headers: dict[str, str]) -> dict[str, Any]:
        """Of a .safetensors file: eight bytes that say how long the JSON after them is."""
        length = int.from_bytes(await self._bytes(path, headers, limit=8, part=(0, 7)), "little")
        if not 0 < length <= HEADER_LIMIT_BYTES:
            raise HubError(f"{path}: a header of {length} bytes")
        return _object(await self._bytes(path, headers, limit=length, part=(8, 7 + length)), path)

    async def _json(self, path: str, headers: dict[str, str], limit: int) -> dict[str, Any]:
        return _object(await self._bytes(path, headers, limit=limit), path)

    async def _bytes(
        self, path: str, headers: dict[str, str], *, limit: int, part: tuple[int, int] | None = None
    ) -> bytes:
        if part is not None:
            headers = {**headers, "Range": f"bytes={part[0]}-{part[1]}"}
        async with self._session.get(self._endpoint + path, headers=headers) as answer:
            if answer.status != (206 if part is not None else 200):
                raise HubError(f"{path}: HTTP {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(64 * 1024):
                body += chunk
                if len(body) > limit:
                    raise HubError(f"{path}: more than {limit} bytes")
            return bytes(body)


def _object(body: bytes, path: str) -> dict[str, Any]:
    parsed = json.loads(body)
    if not isinstance(parsed, dict):
        raise HubError(f"{path}: not a JSON object")
    return parsed
