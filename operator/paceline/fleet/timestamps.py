"""Seconds since 1970 and RFC 3339, in both directions. Time is always an argument here, never read."""

from __future__ import annotations

from datetime import UTC, datetime


def unix_s(timestamp: str) -> float:
    """Of a time-stamp as the API server writes it."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def rfc3339(at_s: float) -> str:
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
