"""The layout of this pod: which one to start in, when to change it, and the way back.

The order comes by a file (an annotation of the pod, written there by the kubelet). A change is a new start in the same
container, which keeps its GPUs: nobody can take them meanwhile, and nothing can be Pending.

    serving tp=8 ──order tp=4,dp=2──▶ paused, last request ends ──exec──▶ starting tp=4,dp=2 ──▶ serving
                         └── requests did not end in time: serving tp=8 ◀──exec── failed ──┘     (refused, and said so)

What was last served and what is being tried stand in a file of the pod's own volume, which outlives the container: a
start that takes the container with it (out of memory) leads back like one that fails. Both engines use this, the
emulated one as vLLM's launcher.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from paceline_core import Layout, LayoutError, LayoutOrder
from paceline_runtime.launch.admin_client import AdminClient, NoAnswer, NoServer
from paceline_runtime.launch.options import ServeOptions
from paceline_runtime.vllm_plugin.settings import RefusedLayout

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 1.0
_ASK_EVERY_S = 0.25


class PodLayout:
    """`current` is what this start is in."""

    def __init__(self, *, file: Path | None, memory: Path, base: Layout) -> None:
        self._file = file
        self._memory = memory
        self._base = base
        self._served, trying, self.refused = _recall(memory)
        self._order = self._read_order()
        wanted = self._order.layout if self._order is not None else base
        if trying == wanted and self._served not in (None, wanted):
            self._refuse("the pod ended while it started in this layout")
        if self.refused is not None and self.refused.order != self._order_text:
            self.refused = None
        self.current = self._served if self.refused is not None and self._served is not None else wanted
        self._remember(trying=self.current)

    @classmethod
    def of(cls, options: ServeOptions) -> PodLayout:
        return cls(
            file=options.layout_file,
            memory=options.admin_socket.with_name("layout.json"),
            base=options.layout,
        )

    def opened(self) -> None:
        """It serves."""
        self._served = self.current
        self._remember(trying=None)

    def failed(self, message: str) -> bool:
        """The start did not come to its end. Whether there is a layout to go back to, by `restart`."""
        if self._served is None or self._served == self.current:
            return False
        log.error("layout_refused", layout=str(self.current), back_to=str(self._served), message=message)
        self._refuse(message)
        self._remember(trying=None)
        return True

    def wait_for_another(self, admin: AdminClient, *, is_open: Callable[[], bool]) -> None:
        """Return when the pod is to start anew in another layout, with no request left in it."""
        while True:
            time.sleep(_LOOK_EVERY_S)
            self._order = self._read_order()
            layout = self._order.layout if self._order is not None else self._base
            if layout == self.current or (
                self.refused is not None and self.refused.order == self._order_text
            ):
                continue
            log.info("layout_change", before=str(self.current), now=str(layout))
            if not is_open() or self._is_paused(admin, self._order or LayoutOrder(layout, change=0)):
                return

    @staticmethod
    def restart() -> None:
        """The same command once more, as the same process: the container and its GPUs stay.

        SIGTERM waits until the new start takes signals (`heed_signals`): a container's first process loses one that
        comes while it has no handler.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, sys.orig_argv)

    @staticmethod
    def heed_signals() -> None:
        """The handlers are there."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    @property
    def _order_text(self) -> str:
        return str(self._order) if self._order is not None else ""

    def _refuse(self, message: str) -> None:
        self.refused = RefusedLayout(self._order_text, message)

    def _is_paused(self, admin: AdminClient, order: LayoutOrder) -> bool:
        """Whether the server has no request left; False where it serves on."""
        ask: Callable[[], dict[str, Any]] = partial(admin.pause, order)
        while True:
            try:
                state = ask()
            except NoServer:
                return True
            except NoAnswer as error:
                log.warning("pause_again", error=str(error))
            else:
                ask = admin.state
                if state["phase"] == "drained":
                    return True
                if state["phase"] == "serving":
                    self._refuse("requests did not end in time")
                    self._remember(trying=None)
                    return False
            time.sleep(_ASK_EVERY_S)

    def _read_order(self) -> LayoutOrder | None:
        """None: no other layout than that of the command line is wanted."""
        text = _text(self._file)
        if not text:
            return None
        try:
            order = LayoutOrder.parse(text)
        except LayoutError as error:
            log.error("layout_order_unreadable", error=str(error))
            return None
        if order.layout.gpus != self._base.gpus:
            log.error("layout_order_unfit", layout=str(order.layout), gpus=self._base.gpus)
            return None
        return order

    def _remember(self, *, trying: Layout | None) -> None:
        if self._file is None:
            return
        written = {
            "served": None if self._served is None else str(self._served),
            "trying": None if trying is None else str(trying),
            "refused": None
            if self.refused is None
            else {"order": self.refused.order, "message": self.refused.message},
        }
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        aside = self._memory.with_suffix(".new")
        aside.write_text(json.dumps(written))
        aside.replace(self._memory)


def _recall(memory: Path) -> tuple[Layout | None, Layout | None, RefusedLayout | None]:
    """(last served, being tried, refused)"""
    text = _text(memory)
    if not text:
        return None, None, None
    try:
        written = json.loads(text)
        served, trying = (
            Layout.parse(one) if (one := written[key]) else None for key in ("served", "trying")
        )
        refused = RefusedLayout(**written["refused"]) if written["refused"] else None
    except (ValueError, TypeError, KeyError) as error:
        log.error("layout_memory_unreadable", path=str(memory), error=str(error))
        return None, None, None
    return served, trying, refused


def _text(path: Path | None) -> str:
    try:
        return path.read_text().strip() if path is not None else ""
    except OSError:
        return ""
