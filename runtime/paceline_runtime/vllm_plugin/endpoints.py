"""The endpoint plugin of stock vLLM: probes on the serving port, our series on its metrics page, the admin
socket.

vLLM calls `attach_router` while it builds the application and `init_state` in the running event loop, once
the engine is up. It reaches nothing in the engine; it reads how many requests the frontend holds, and how
long their prompts are.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Any

from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.datastructures import State

from paceline_runtime.logs import configure_logs
from paceline_runtime.vllm_plugin import admin, targets_file
from paceline_runtime.vllm_plugin.drain import Drain
from paceline_runtime.vllm_plugin.exposition import PacelineCollector
from paceline_runtime.vllm_plugin.probes import Probes
from paceline_runtime.vllm_plugin.serving import current


class PacelineEndpoints:
    """Satisfies vLLM's EndpointPlugin protocol."""

    name = "paceline"
    required_tasks = None

    def __init__(self) -> None:
        configure_logs()
        self._tasks: list[asyncio.Task[None]] = []

    def attach_router(self, app: FastAPI) -> None:
        for path, endpoint in Probes(current()).routes.items():
            app.add_api_route(path, endpoint, methods=["GET"], include_in_schema=False)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        serving = current()
        if engine_client is not None:
            serving.engine = VllmFrontend(engine_client)
        REGISTRY.register(PacelineCollector(serving))
        socket = admin.bind(serving.settings.admin_socket)
        self._tasks = [
            asyncio.create_task(admin.listen(admin.Admin(serving, drain=Drain(serving)), on=socket)),
            asyncio.create_task(targets_file.follow(serving)),
        ]


class VllmFrontend:
    """What vLLM's frontend process knows of the requests it holds (AsyncLLM of vLLM 0.32)."""

    def __init__(self, engine_client: Any) -> None:
        self._client = engine_client

    def unfinished(self) -> int:
        return int(self._client.get_num_unfinished_requests())

    def prompt_tokens(self, request_id: str) -> int | None:
        processor = self._client.output_processor
        # A completion of several prompts numbers them; the first stands for the others.
        for external_id in (request_id, f"{request_id}-0"):
            for internal_id in processor.external_req_ids.get(external_id, ()):
                if (state := processor.request_states.get(internal_id)) is not None:
                    return int(state.prompt_len)
        return None

    async def answer(self) -> None:
        """Its core answers between two steps; nothing is put to sleep or woken by the question."""
        await self._client.is_sleeping()
