"""Quotas that cannot be read: what was known last holds, and unknown is not "no limit"."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from paceline.controller import quotas
from paceline.controller.errors import Rejected, Unavailable
from paceline.controller.quotas import QuotaBook

QUOTA = {"metadata": {"namespace": "team-a", "name": "gpus"}, "status": {"hard": {"requests.gpu": "8"}}}
AWAY = Unavailable("etcd is slow", status=500, what="list resourcequotas")
FORBIDDEN = Rejected("no right", status=403, what="list resourcequotas")


class Api:
    """Answers with quotas, or fails."""

    def __init__(self) -> None:
        self.answer: list[dict[str, Any]] | Exception | None = [QUOTA]
        self.now_s = 100.0

    async def list(self, *_: Any, **__: Any) -> tuple[list[dict[str, Any]], str]:
        if self.answer is None:
            await asyncio.sleep(3600)
        if isinstance(self.answer, Exception):
            raise self.answer
        return cast(list[dict[str, Any]], self.answer), "7"

    def book(self) -> QuotaBook:
        return QuotaBook(cast(Any, self), clock=lambda: self.now_s)


async def test_a_list_that_fails_keeps_the_last_one_with_its_age() -> None:
    api = Api()
    book = api.book()
    await book.read()
    api.answer, api.now_s = AWAY, 145.0
    with capture_logs() as logs:
        await book.read()
        await book.read()
    assert book.of("team-a") == [QUOTA]
    assert book.of("team-b") == ()
    assert book.age_s == 45.0
    (said,) = logs
    assert (said["log_level"], said["age_s"]) == ("warning", 45.0)
    assert "etcd is slow" in said["error"]


async def test_a_list_that_never_came_is_unknown() -> None:
    api = Api()
    api.answer = AWAY
    book = api.book()
    await book.read()
    assert book.of("team-a") is None
    assert book.age_s is None


async def test_a_list_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "READ_S", 0.05)
    api = Api()
    book = api.book()
    await book.read()
    api.answer = None
    await asyncio.wait_for(book.read(), timeout=5)
    assert book.of("team-a") == [QUOTA]


async def test_what_is_known_again_is_the_new_list_and_its_loss_is_told_again() -> None:
    api = Api()
    book = api.book()
    with capture_logs() as logs:
        for api.answer in (AWAY, [], AWAY):
            await book.read()
    assert [one["log_level"] for one in logs] == ["warning", "info", "warning"]
    assert book.of("team-a") == ()


async def test_without_the_right_to_list_them_there_are_none() -> None:
    """They would stay unknown for ever, and nothing could grow."""
    api = Api()
    api.answer = FORBIDDEN
    book = api.book()
    await book.read()
    assert book.of("team-a") == ()


async def test_a_right_that_is_lost_takes_no_knowledge_away() -> None:
    api = Api()
    book = api.book()
    await book.read()
    api.answer = FORBIDDEN
    await book.read()
    assert book.of("team-a") == [QUOTA]
