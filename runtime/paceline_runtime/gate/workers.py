"""The local router's list of workers, kept equal to the Ready engine pods.

`vllm-router` discovers pods by itself, but a pod that does not answer stalls its discovery, a watch error
blinds it for a minute, and pods that went in that time stay listed. So the gate compares the list with the
pods every five seconds and repairs it over the router's admin routes, on loopback. The proxy calls
:meth:`Reconcile.evict_dead` when a send failed. It must never change the list from what a watch said alone:
each repair is preceded by a fresh list of the pods, as our own watch may be the blind one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
import structlog

from paceline_runtime.gate.metrics import Metrics
from paceline_runtime.gate.pods import PodsUnreadable

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 5.0
LOOK_AGAIN_S: Final = 1.0
"""The next look after one that found a difference, and after a pod event: by then the router's own discovery
has acted, or has not."""

ALARM_AFTER_S: Final = 15.0

ADD_AFTER_S: Final = 3.0
"""A missing worker is added by us after this long: when the router's discovery adds it at the same moment,
it forgets that it did and will not remove the worker later."""

LIST_TIMEOUT_S: Final = 2.0
ADD_TIMEOUT_S: Final = 10.0
"""The router answers an addition after the worker's /health did, or after its own 5 s."""

CONNECT_TIMEOUT_S: Final = 1.0
"""A worker that does not take a connection within this time is dead to us. A live one that is wrongly taken
out comes back at the next look."""


class RouterSilent(Exception):
    """The router did not answer an admin route."""


class RouterGone(RouterSilent):
    """Nothing took the connection: no router runs."""


class RouterList:
    """The admin routes of the router beside us. Workers are named `ip:port`."""

    def __init__(self, session: aiohttp.ClientSession, *, router_url: str) -> None:
        self._session = session
        self._url = router_url

    async def read(self) -> frozenset[str]:
        """Every worker that the router would send to. Raises RouterSilent."""
        try:
            timeout = aiohttp.ClientTimeout(total=LIST_TIMEOUT_S)
            async with self._session.get(f"{self._url}/list_workers", timeout=timeout) as response:
                response.raise_for_status()
                document = await response.json()
            return frozenset(url.removeprefix("http://") for url in document["urls"])
        except aiohttp.ClientConnectorError as error:
            raise RouterGone(repr(error)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
            raise RouterSilent(repr(error)) from error

    async def add(self, worker: str) -> bool:
        """Whether the router took the worker: it asks the worker's /health first. Raises RouterSilent."""
        return await self._post("add_worker", worker=worker)

    async def remove(self, worker: str) -> bool:
        return await self._post("remove_worker", worker=worker)

    async def _post(self, route: str, *, worker: str) -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=ADD_TIMEOUT_S)
            async with self._session.post(
                f"{self._url}/{route}", params={"url": f"http://{worker}"}, timeout=timeout
            ) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RouterSilent(repr(error)) from error


class Wanted(Protocol):
    """Which workers should be listed. Addresses are a cheap, perhaps old view; `read` asks the source."""

    def addresses(self) -> frozenset[str] | None: ...

    async def read(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Difference:
    """What the router lists against what it should list."""

    missing: frozenset[str]
    ghosts: frozenset[str]

    @classmethod
    def between(cls, *, listed: frozenset[str], wanted: frozenset[str]) -> Difference:
        return cls(missing=wanted - listed, ghosts=listed - wanted)

    def __bool__(self) -> bool:
        return bool(self.missing or self.ghosts)


class Reconcile:
    """Compares and repairs. One look runs at a time; additions run aside, as a dead worker takes 5 s.

    `changed` is set by whoever knows that the wanted workers have changed, and leads to a look soon.
    """

    def __init__(
        self,
        router: RouterList,
        *,
        wanted: Wanted,
        changed: asyncio.Event,
        metrics: Metrics,
        add_after_s: float = ADD_AFTER_S,
    ) -> None:
        self._router = router
        self._wanted = wanted
        self._changed = changed
        self._metrics = metrics
        self._add_after_s = add_after_s
        self._missing_since_s: dict[str, float] = {}
        self._adding: dict[str, asyncio.Task[None]] = {}
        self._refused: set[str] = set()
        self._differs_since_s: float | None = None
        self._alarmed = False
        self._unrepaired = False
        self._equalled = False
        self._answered_s = -math.inf
        self._ran_s = -math.inf
        self._eviction: asyncio.Task[int] | None = None

    @property
    def equalled_once(self) -> bool:
        """Whether the router's list has once been equal to the Ready pods.

        Pods whose port did not answer the router are left out of this, not of the divergence: one dead
        engine must not keep every new gate from becoming ready.
        """
        return self._equalled

    def silent_s(self) -> float:
        """How long the router has not answered; infinite before its first answer."""
        return asyncio.get_running_loop().time() - self._answered_s

    def gone_s(self) -> float:
        """How long nothing has taken a connection in the router's place; infinite before it first ran."""
        return asyncio.get_running_loop().time() - self._ran_s

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            if self._differs_since_s is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S - LOOK_AGAIN_S):
                        await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(LOOK_AGAIN_S)

    async def look(self) -> None:
        """Compare once, and repair what differs."""
        wanted = self._wanted.addresses()
        try:
            listed: frozenset[str] | None = await self._router.read()
            self._ran_s = self._answered_s = asyncio.get_running_loop().time()
        except RouterGone:
            listed = None
        except RouterSilent:
            self._ran_s = asyncio.get_running_loop().time()
            listed = None
        if wanted is None:
            return
        if listed is None:
            # A router that does not answer lists nobody.
            self._account(Difference(missing=wanted, ghosts=frozenset()), equal=False)
            return
        difference = Difference.between(listed=listed, wanted=wanted)
        try:
            if difference:
                difference = Difference.between(listed=listed, wanted=await self._wanted.read())
            await self._repair(difference)
            self._unrepaired = False
        except (PodsUnreadable, RouterSilent) as error:
            if not self._unrepaired:
                self._unrepaired = True
                log.warning("router_list_unrepaired", error=str(error))
        self._refused &= difference.missing
        if not difference.ghosts and difference.missing == self._refused:
            self._equalled = True
        self._account(difference, equal=not difference)

    async def evict_dead(self) -> int:
        """Take every worker whose port takes no connection out of the list; how many that were.

        Without circuit breakers the router prefers a dead worker, since it has the least load. Callers that
        come while an eviction runs share it.
        """
        if self._eviction is None:
            self._eviction = asyncio.create_task(self._evict())
            self._eviction.add_done_callback(lambda _: setattr(self, "_eviction", None))
        return await asyncio.shield(self._eviction)

    async def close(self) -> None:
        """End the additions that run."""
        tasks = [*self._adding.values(), *([self._eviction] if self._eviction is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repair(self, difference: Difference) -> None:
        for worker in sorted(difference.ghosts):
            log.info("worker_removed", worker=worker, why="not a Ready pod")
            await self._router.remove(worker)
        now_s = asyncio.get_running_loop().time()
        self._missing_since_s = {
            worker: self._missing_since_s.get(worker, now_s) for worker in difference.missing
        }
        for worker, since_s in self._missing_since_s.items():
            if now_s - since_s >= self._add_after_s and worker not in self._adding:
                self._adding[worker] = asyncio.create_task(self._add(worker))

    async def _add(self, worker: str) -> None:
        try:
            taken = await self._router.add(worker)
            # Its /health may have taken seconds, in which the pod may have begun to drain.
            if taken and worker not in (self._wanted.addresses() or ()):
                await self._router.remove(worker)
                return
            if taken:
                log.info("worker_added", worker=worker, why="Ready, not listed")
                self._refused.discard(worker)
            elif worker not in self._refused:
                # Said once: the next tries, one in six seconds, are not news.
                self._refused.add(worker)
                log.warning("worker_not_added", worker=worker, why="Ready, but the router did not take it")
        except RouterSilent as error:
            log.warning("worker_not_added", worker=worker, why=str(error))
        finally:
            del self._adding[worker]

    async def _evict(self) -> int:
        try:
            listed = await self._router.read()
            dead = await _unreachable(listed)
            for worker in dead:
                log.warning("worker_removed", worker=worker, why="takes no connection")
                await self._router.remove(worker)
                self._metrics.evicted.inc()
        except RouterSilent:
            return 0
        return len(dead)

    def _account(self, difference: Difference, *, equal: bool) -> None:
        now_s = asyncio.get_running_loop().time()
        if equal:
            if self._alarmed:
                log.info("router_list_equal_again")
            self._differs_since_s, self._alarmed = None, False
            self._metrics.router_divergence_s.set(0)
            return
        if self._differs_since_s is None:
            self._differs_since_s = now_s
        differs_s = now_s - self._differs_since_s
        self._metrics.router_divergence_s.set(differs_s)
        if differs_s >= ALARM_AFTER_S and not self._alarmed:
            self._alarmed = True
            log.error(
                "router_list_differs",
                seconds=round(differs_s, 1),
                missing=sorted(difference.missing),
                ghosts=sorted(difference.ghosts),
            )


async def _unreachable(workers: Iterable[str]) -> list[str]:
    async def takes_connection(worker: str) -> bool:
        host, _, port = worker.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError, ValueError):
            return False
        writer.close()
        return True

    named = sorted(workers)
    alive = await asyncio.gather(*(takes_connection(worker) for worker in named))
    return [worker for worker, lives in zip(named, alive, strict=True) if not lives]
