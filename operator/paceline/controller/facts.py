"""What the checkpoint of a service says about itself, where the operator can know it without loading
anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paceline.api import InferenceService
from paceline.controller.api_client import ApiClient
from paceline.controller.work_queue import ServiceKey


@dataclass(frozen=True, slots=True)
class Lookup:
    facts: Any = None
    pending_s: float | None = None


class FactsSource:
    def __init__(
        self, client: ApiClient, *, hub_endpoint: str | None, on_news: Callable[[ServiceKey], None]
    ) -> None:
        self._client = client

    def lookup(self, service: InferenceService, *, namespace: str) -> Lookup:
        return Lookup()

    async def close(self) -> None:
        return None
