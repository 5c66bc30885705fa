"""What can go wrong between the operator and the API server.

ControllerError
├── ConfigurationError     the process cannot start: the message says which flag or variable to set
├── FenceLost              this process is no longer the leader and must not write: it ends
└── ApiError               an answer other than 2xx
    ├── NotFound           404
    ├── AlreadyExists      409 on create
    ├── FieldConflict      409 of a server-side apply: other managers own fields
    ├── StaleWrite         409: resourceVersion or uid is not the one that was read
    ├── Rejected           400, 403, 413, 422: sending it again would not help
    └── Unavailable        429, 5xx, no connection, no answer in time: later, perhaps
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ControllerError(Exception):
    """Root of the controller's errors."""


class ConfigurationError(ControllerError):
    """The operator cannot start as it was told to."""


class FenceLost(ControllerError):
    """The lease is not held any more, by our own clock."""


class ApiError(ControllerError):
    def __init__(self, message: str, *, status: int, what: str) -> None:
        super().__init__(f"{what}: {message}")
        self.status = status
        self.message = message


class NotFound(ApiError):
    pass


class AlreadyExists(ApiError):
    pass


class StaleWrite(ApiError):
    pass


class Rejected(ApiError):
    pass


class Unavailable(ApiError):
    def __init__(self, message: str, *, status: int, what: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status, what=what)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ForeignFields:
    """Fields of ours that another field manager holds."""

    manager: str
    fields: tuple[str, ...]


class FieldConflict(ApiError):
    def __init__(self, message: str, *, what: str, foreign: tuple[ForeignFields, ...]) -> None:
        super().__init__(message, status=409, what=what)
        self.foreign = foreign


def error_of_answer(status: int, body: bytes, *, what: str, headers: Mapping[str, str]) -> ApiError:
    """The error for an answer other than 2xx; the body is a `Status` object, or not (a proxy's page)."""
    details = _status_object(body)
    message = str(details.get("message") or body[:300].decode(errors="replace") or f"HTTP {status}")
    if status == 404:
        return NotFound(message, status=status, what=what)
    if status == 409:
        if details.get("reason") == "AlreadyExists":
            return AlreadyExists(message, status=status, what=what)
        if foreign := _foreign_fields(details):
            return FieldConflict(message, what=what, foreign=foreign)
        return StaleWrite(message, status=status, what=what)
    if status == 429 or status >= 500:
        return Unavailable(
            message, status=status, what=what, retry_after_s=_seconds(headers.get("Retry-After"))
        )
    return Rejected(message, status=status, what=what)


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _foreign_fields(details: Mapping[str, Any]) -> tuple[ForeignFields, ...]:
    """The causes of a conflict, by manager.

    A cause reads `conflict with "kubectl-edit" using apps/v1` or, for a subresource,
    `conflict with "hpa" with subresource "scale" using apps/v1`; the field stands apart.
    """
    by_manager: dict[str, list[str]] = {}
    for cause in (details.get("details") or {}).get("causes") or ():
        if cause.get("reason") != "FieldManagerConflict":
            continue
        quoted = str(cause.get("message") or "").split('"')
        manager = quoted[1] if len(quoted) > 2 else "unknown"
        by_manager.setdefault(manager, []).append(str(cause.get("field") or "unknown"))
    return tuple(ForeignFields(manager, tuple(fields)) for manager, fields in by_manager.items())


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
