"""Kubernetes quantities: `4Gi`, `500m`, `2`. Used by the fields that hold one and by whoever needs the
number.

A quantity stays the text that the user wrote, so that a manifest reads back as it was written; `bytes_of` and
`quantity_value` give the number, exactly (no floats).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema

from paceline.api.base import SAYS

QUANTITY_PATTERN = r"^([0-9]+(\.[0-9]{1,9})?|\.[0-9]{1,9})(m|[kMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"
"""No sign: no field of ours takes a negative amount. `n` and `u` exist in Kubernetes and serve nothing
here."""

_SUFFIXES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}


def _to_text(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


Quantity = Annotated[
    str,
    BeforeValidator(_to_text),
    StringConstraints(pattern=QUANTITY_PATTERN, max_length=32),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
            "maxLength": 32,
            SAYS: "write a number with a unit, such as 4Gi, 500M or 250m",
        }
    ),
]


def quantity_value(text: str) -> Decimal:
    """The number that a quantity stands for; a ValueError that says what to write for anything else."""
    if re.fullmatch(QUANTITY_PATTERN[1:-1], text) is None:
        raise ValueError(f"{text!r} is not a quantity: write a number with a unit, such as 4Gi, 500M or 250m")
    suffix = re.search(r"(m|[kMGTPE]i?|Ki)$", text)
    if suffix is None:
        return Decimal(text)
    return Decimal(text[: suffix.start()]) * _SUFFIXES[suffix.group()]


def bytes_of(text: str) -> int:
    """A quantity of memory in bytes, rounded up as the kubelet does."""
    value = quantity_value(text)
    return int(value.to_integral_value(rounding="ROUND_CEILING"))
