"""Edges of the histograms, with one at each target of the service.

With an edge at the target, the share of requests within it is read from a histogram as a count, not
interpolated. The edges are fixed when the server starts: after a change of targets the histograms are good
for pictures, and the exact counts stay with `paceline_requests_total`.

Lengths get two edges an octave where vLLM has one: what a shape can carry follows from the mix of prompts.
"""

from __future__ import annotations

from paceline_core.latency import Targets

_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 12, 20, 40, 80, 160, 640)
_TOKEN_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10, 40)
_TOKENS = (1, 8, *(edge for octave in range(4, 21) for edge in (2**octave, 3 * 2 ** (octave - 1))))
_REQUEST_S = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1200, 3600)


def histogram_buckets(
    targets: Targets, *, max_prompt_tokens: int, max_model_tokens: int
) -> dict[str, list[float]]:
    """By the family names of vLLM's --custom-histogram-buckets."""
    first_token_s = (*_FIRST_TOKEN_S, *targets.ttft_edges_s(max_prompt_tokens=max_prompt_tokens))
    class_bounds = (one.max_prompt_tokens for one in targets.classes if one.max_prompt_tokens is not None)
    tokens = {edge for edge in (*_TOKENS, *class_bounds, max_prompt_tokens) if edge < max_model_tokens}
    return {
        "time_to_first_token": sorted(set(map(float, first_token_s))),
        "inter_token_latency": sorted(set(map(float, (*_TOKEN_S, *targets.tpot_edges_s())))),
        "request_latency": list(map(float, _REQUEST_S)),
        "request_tokens": sorted(map(float, (*tokens, max_model_tokens))),
    }
