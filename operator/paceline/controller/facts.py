"""What the checkpoint of a service says about itself, where the operator can know it without loading
anything.

The reconciler asks; it never waits here. Bundled models stand in a table. A model of the Hub is looked up
in the background, once per revision, and the first look at a new service is put off for as long as that
takes, within `PATIENCE_S`: with the facts, a spec that cannot work is refused before a pod exists.
Everything else (a claim, a bucket, a Hub that does not answer) is unknown, and the launcher in the pod
decides before it loads anything.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from paceline.api import InferenceService
from paceline.controller.api_client import ApiClient
from paceline.controller.errors import ApiError
from paceline.controller.hub import Hub, HubError, HubUnreachable
from paceline.controller.resources import SECRET
from paceline.controller.work_queue import ServiceKey
from paceline_core.checkpoint import BUNDLED_FACTS, CheckpointFacts
from paceline_core.uri import BundledUri, HubUri, UriError, parse_uri

log = structlog.get_logger()

PATIENCE_S = 3.0
TIMEOUT_S = 5.0
KEEP_S = 3600.0
"""A branch may move; the same commit never changes, and is kept as long as there is room."""

RETRY_S = 300.0
UNREACHABLE_S = 60.0
"""After no connection, no model is waited for until then: an operator without a way out must not be slow."""

KEPT = 2000
TOKEN_KEY = "token"


@dataclass(frozen=True, slots=True)
class Lookup:
    facts: CheckpointFacts | None = None
    pending_s: float | None = None
    """The answer is on its way: look again when it comes, or after this."""


@dataclass(frozen=True, slots=True)
class _Question:
    """Facts that one tenant's token opened are not shown to another."""

    uri: HubUri
    namespace: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    facts: CheckpointFacts | None
    until_s: float


class FactsSource:
    def __init__(
        self, client: ApiClient, *, hub_endpoint: str | None, on_news: Callable[[ServiceKey], None]
    ) -> None:
        self._client = client
        self._hub = Hub(hub_endpoint, timeout_s=TIMEOUT_S) if hub_endpoint else None
        self._on_news = on_news
        self._answers: OrderedDict[_Question, _Answer] = OrderedDict()
        self._asking: dict[_Question, tuple[asyncio.Task[None], float]] = {}
        self._unreachable_until_s = 0.0

    def lookup(self, key: ServiceKey, service: InferenceService) -> Lookup:
        model = service.spec.model
        try:
            uri = parse_uri(model.uri)
        except UriError:
            return Lookup()
        if isinstance(uri, BundledUri):
            return Lookup(facts=BUNDLED_FACTS.get(uri.name))
        if not isinstance(uri, HubUri) or self._hub is None:
            return Lookup()
        secret = model.secret_ref.name if model.secret_ref is not None else None
        return self._of_hub(key, _Question(uri=uri, namespace=key.namespace, secret=secret), self._hub)

    async def close(self) -> None:
        tasks = [task for task, _ in self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._hub is not None:
            await self._hub.close()

    def _of_hub(self, key: ServiceKey, question: _Question, hub: Hub) -> Lookup:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        answer = self._answers.get(question)
        if answer is not None and (
            answer.until_s > now_s or (answer.facts is not None and question.uri.is_pinned)
        ):
            return Lookup(facts=answer.facts)
        if question not in self._asking and now_s >= self._unreachable_until_s:
            task = loop.create_task(self._ask(key, question, hub))
            self._asking[question] = (task, now_s)
            task.add_done_callback(lambda _: self._asking.pop(question, None))
        if answer is not None or question not in self._asking:
            # What was known yesterday, or nothing; the new answer will be news.
            return Lookup(facts=answer.facts if answer is not None else None)
        left_s = self._asking[question][1] + PATIENCE_S - now_s
        return Lookup(pending_s=left_s) if left_s > 0 else Lookup()

    async def _ask(self, key: ServiceKey, question: _Question, hub: Hub) -> None:
        loop = asyncio.get_running_loop()
        facts: CheckpointFacts | None = None
        keep_s = RETRY_S
        try:
            facts = await hub.read(question.uri, token=await self._token(question))
            keep_s = KEEP_S
        except HubUnreachable as error:
            self._unreachable_until_s = loop.time() + UNREACHABLE_S
            keep_s = UNREACHABLE_S
            log.warning("the model hub cannot be reached; facts stay unknown", error=str(error))
        except HubError as error:
            log.warning(
                "facts of the model stay unknown", service=key.name, namespace=key.namespace, error=str(error)
            )
        self._answers[question] = _Answer(facts=facts, until_s=loop.time() + keep_s)
        self._answers.move_to_end(question)
        while len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        self._on_news(key)

    async def _token(self, question: _Question) -> str | None:
        """None where there is none, or where the operator may not read Secrets (the chart's default): a
        public model is found without."""
        if question.secret is None:
            return None
        try:
            secret = await self._client.get(SECRET, namespace=question.namespace, name=question.secret)
            return base64.b64decode((secret.get("data") or {})[TOKEN_KEY]).decode().strip() or None
        except (ApiError, KeyError, ValueError):
            return None
