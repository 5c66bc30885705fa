"""What kubelet and operator ask on the serving port. Read-only: nothing here changes anything (see
`admin`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from paceline_runtime.vllm_plugin.serving import Serving

_ANSWER_S: Final = 1.0
"""A probe of the kubelet waits for five."""


class Probes:
    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @property
    def routes(self) -> dict[str, Callable[[Request], Awaitable[Response]]]:
        """GET routes by path."""
        return {"/ready": self.ready, "/live": self.live, "/paceline/info": self.info}

    async def ready(self, _: Request) -> Response:
        """200 if a request sent now would be answered: not while loading, not while leaving, not while the engine
        makes no step."""
        lifecycle, heartbeat = self._serving.lifecycle, self._serving.heartbeat
        if heartbeat.is_stalled() and not self._serving.engine.unfinished() and await self._engine_answers():
            heartbeat.recovered()
        ready = lifecycle.ready and not heartbeat.is_stalled()
        told = {"phase": lifecycle.phase.value, "stepAgeSeconds": round(heartbeat.age_s(), 1)}
        return JSONResponse(told, status_code=200 if ready else 503)

    async def _engine_answers(self) -> bool:
        """Asked where a stalled engine has no request left whose step would tell."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._serving.engine.answer()
        except TimeoutError:
            return False
        return True

    async def live(self, _: Request) -> Response:
        """503 only if the engine has work, or is stalled, and has made no step for a minute. Being busy is no reason to
        die."""
        heartbeat = self._serving.heartbeat
        return JSONResponse(
            {"stepAgeSeconds": round(heartbeat.age_s(), 1)}, status_code=503 if heartbeat.hung else 200
        )

    async def info(self, _: Request) -> Response:
        """What runs here. null is unknown."""
        serving = self._serving
        settings = serving.settings
        return JSONResponse(
            {
                "version": version("paceline-runtime"),
                "emulated": settings.emulated,
                "model": {
                    "uri": settings.model.uri,
                    "revision": settings.model.revision,
                    "attentionHeads": settings.model.attention_heads,
                    "kvHeads": settings.model.kv_heads,
                    "weightsBytes": settings.model.weights_bytes,
                },
                "tensorParallelSize": settings.tensor_parallel_size,
                "dataParallelSize": settings.data_parallel_size,
                "refusedLayout": None
                if (refused := serving.refused_layout) is None
                else {"order": refused.order, "message": refused.message},
                "stages": {stage: round(seconds, 3) for stage, seconds in serving.stages.items()},
                "canary": None if serving.canary is None else serving.canary.to_json(),
                "draining": serving.lifecycle.leaving,
            }
        )
