"""Strings and selectors of PromQL, escaped: a label value from outside can never become a part of a query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping


def quoted(text: str) -> str:
    """A PromQL string literal.

    >>> quoted('a"b\\\\c')
    '"a\\\\"b\\\\\\\\c"'
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def equals(label: str, value: str) -> str:
    return f"{label}={quoted(value)}"


def one_of(label: str, values: Iterable[str]) -> str:
    """A matcher for any of these values, each taken literally."""
    return f"{label}=~{quoted('|'.join(re.escape(value) for value in sorted(values)))}"


def is_set(label: str) -> str:
    return f'{label}!=""'


def all_equal(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(equals(name, value) for name, value in sorted(labels.items()))


def selector(name: str, *matchers: str) -> str:
    """A vector selector. The name is one of ours, never from outside."""
    return f"{name}{{{','.join(matchers)}}}"


def duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
