"""`spec.admission`: what is let in, and for how long. Read by the fleet (arguments of engine and gate, drain
times)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from paceline.api.base import ApiModel


class Admission(ApiModel):
    """Limits on requests: beyond them a client gets 429 or 413, and the running requests keep their pace."""

    max_queued_requests_per_replica: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=64,
        description="Requests that may wait in one replica beside those that run. One more is answered 429 "
        "with Retry-After.",
    )
    max_queued_tokens_per_replica: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        default=200_000,
        description="Prompt tokens that may wait in one replica. One more is answered 429 with Retry-After.",
    )
    max_prompt_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(
        default=None,
        description="Longest prompt. Absent: spec.model.maxModelTokens less maxOutputTokens.",
    )
    max_output_tokens: Annotated[int, Field(ge=1, le=16_777_216)] = Field(
        default=2048,
        description="Most output tokens of a request.",
    )
    max_request_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=600,
        description="Longest time of a request from arrival to its last byte. Pods that leave wait this "
        "long for their requests.",
    )
