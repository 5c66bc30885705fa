"""`spec.slo`: what a good request is, and how many of them there must be.

Read by the fleet (targets.json of the pods, buckets of the histograms) and by the status. The rule that
judges one request lives in `paceline_core.latency`; this file only turns the spec into its targets.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from paceline.api.base import DNS_LABEL, ApiModel, Rule, list_map, rules, says
from paceline_core.latency import LatencyTarget, Targets

Preset = Literal["Interactive", "Standard"]

PRESETS: dict[Preset, LatencyTarget] = {
    "Interactive": LatencyTarget(
        name="all", max_prompt_tokens=None, ttft_ms=500, ttft_per_thousand_prompt_tokens_ms=0, tpot_ms=30
    ),
    "Standard": LatencyTarget(
        name="all", max_prompt_tokens=None, ttft_ms=2000, ttft_per_thousand_prompt_tokens_ms=0, tpot_ms=100
    ),
}
"""The p99 limits of MLPerf Inference for Llama-3.1-8B, its interactive and its server scenario."""

MAX_CLASSES = 8


class TimeToFirstToken(ApiModel):
    """Time from the arrival at the gate to the first token."""

    threshold_milliseconds: Annotated[int, Field(ge=1, le=3_600_000)] = Field(
        description="Target for the time to the first token."
    )
    per_thousand_prompt_tokens_milliseconds: Annotated[int, Field(ge=0, le=3_600_000)] = Field(
        default=0,
        description="Added to the target for each 1000 tokens of the prompt, in proportion: long prompts "
        "take longer to read.",
    )


class TimePerOutputToken(ApiModel):
    """Mean time between the tokens of one request."""

    threshold_milliseconds: Annotated[int, Field(ge=1, le=600_000)] = Field(
        description="Target for the mean time per output token after the first."
    )


class LatencyClass(ApiModel):
    """The targets for prompts up to a length."""

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=63, pattern=DNS_LABEL),
        Field(json_schema_extra=says("write lower case letters, digits and '-'")),
    ] = Field(description="Name of the class, as metrics show it.")
    max_prompt_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(
        default=None,
        description="Longest prompt of the class. Absent in the last class, which takes every other prompt.",
    )
    time_to_first_token: TimeToFirstToken = Field(description="Target for the time to the first token.")
    time_per_output_token: TimePerOutputToken = Field(
        description="Target for the mean time per output token."
    )


class Slo(ApiModel):
    """The objective, and the targets that it counts."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="!has(self.preset) || self.latencyClasses.size() == 0",
                field_path=".preset",
                message="a preset already sets the targets: write preset or latencyClasses, not both",
            ),
            Rule(
                cel="self.latencyClasses.size() == 0 || !has(self.latencyClasses[self.latencyClasses.size() "
                "- 1].maxPromptTokens)",
                field_path=".latencyClasses",
                message="the last class takes every longer prompt: leave its maxPromptTokens out",
            ),
            Rule(
                cel="[0, 1, 2, 3, 4, 5, 6].all(i, i + 1 >= self.latencyClasses.size() || "
                "has(self.latencyClasses[i].maxPromptTokens))",
                field_path=".latencyClasses",
                message="only the last class may be unbounded: write maxPromptTokens in every other one",
            ),
            Rule(
                cel="[0, 1, 2, 3, 4, 5].all(i, i + 2 >= self.latencyClasses.size() || "
                "!has(self.latencyClasses[i].maxPromptTokens) || !has(self.latencyClasses[i + "
                "1].maxPromptTokens) || self.latencyClasses[i].maxPromptTokens < self.latencyClasses[i + "
                "1].maxPromptTokens)",
                field_path=".latencyClasses",
                message="the first match counts: write the classes with ascending maxPromptTokens",
            ),
        )
    )

    objective_percent: Annotated[
        str,
        StringConstraints(max_length=5, pattern=r"^[5-9][0-9](\.[0-9]{1,2})?$"),
        Field(json_schema_extra=says('write a quoted number from "50" to "99.99", such as "99.0"')),
    ] = Field(
        default="99.0",
        description="Share of requests, in percent, that meet all their targets. A decimal number in "
        "quotes, from 50 to 99.99.",
    )
    window_seconds: Annotated[int, Field(ge=3600, le=7_776_000)] = Field(
        default=2_419_200,
        description="Window of the error budget. The default is 28 days.",
    )
    preset: Preset | None = Field(
        default=None,
        description="Targets by name: Interactive (first token 500 ms, 30 ms per token) or Standard (2000 "
        "ms, 100 ms). Standard holds where neither this nor latencyClasses is given.",
    )
    latency_classes: Annotated[tuple[LatencyClass, ...], Field(max_length=MAX_CLASSES)] = Field(
        default=(),
        description="Targets by length of the prompt, ascending; the first class that a prompt fits counts.",
        json_schema_extra=list_map("name"),
    )

    def targets(self) -> Targets:
        """The targets that hold, preset or own, in the form that the pods read."""
        if not self.latency_classes:
            return Targets(classes=(PRESETS[self.preset or "Standard"],))
        return Targets(
            classes=tuple(
                LatencyTarget(
                    name=one.name,
                    max_prompt_tokens=one.max_prompt_tokens,
                    ttft_ms=one.time_to_first_token.threshold_milliseconds,
                    ttft_per_thousand_prompt_tokens_ms=(
                        one.time_to_first_token.per_thousand_prompt_tokens_milliseconds
                    ),
                    tpot_ms=one.time_per_output_token.threshold_milliseconds,
                )
                for one in self.latency_classes
            )
        )
