"""Makes a compact table from sampled operation times: f, a_p and a_d of `paceline_core.timing`, by least squares.

Called by `paceline timing build`. Pure: the samples come from `timing_sampler`. An operation's time is a sum of
what it costs at all, per token and per token of context; the last becomes a_p or a_d, the others go into f.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from paceline_core.roofline import SEQUENCE_S, SEQUENCES_OF_TOKENS
from paceline_core.timing import HOST_OVERHEAD_S, StepTiming

_Floats = npt.NDArray[np.float64]

DECODING_TOKENS: Final = 256
"""Up to here a step's tokens count as decoding sequences, beyond it as a prefill: their attention differs."""
LINEAR_TOKENS: Final = 1024
"""From here on every kernel is busy: f is close to a line, which gives the last knot."""
LAST_TOKENS: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What single operations do not show, fitted on closed-loop rows of Llama-3.1-70B FP8 on H100 (docs/timing.md)."""

    decode_attention: float
    """Sequences of a real batch differ in length, those of a measured operation do not."""
    long_all_reduce: float
    """Of a prefill: served models wait less for it than a lone all-reduce takes."""
    sequence_s: float
    """The engine's own work for each sequence of a step: scheduling, sampling, the text."""
    overhead_s: Mapping[int, float]
    """δ by TP: the gap between steps grows with the processes that must start each."""


UNCALIBRATED: Final = Calibration(
    decode_attention=1.0,
    long_all_reduce=1.0,
    sequence_s=0.0,
    overhead_s=dict.fromkeys((1, 2, 4, 8), HOST_OVERHEAD_S),
)
CALIBRATED: Final = Calibration(
    decode_attention=1.13,
    long_all_reduce=0.87,
    sequence_s=SEQUENCE_S,
    overhead_s={1: 0.5e-3, 2: 0.7e-3, 4: 1.1e-3, 8: 1.4e-3},
)


def fit_step_timing(
    samples: Mapping[str, Any], *, kv_cache_tokens: int, calibration: Calibration
) -> StepTiming:
    """One (model, format, GPU, TP). Errors are weighed by the whole step: 1 % of a step counts the same in all."""
    tokens, rest, all_reduce, logits = _columns(samples["tokens"])
    rest += all_reduce * np.interp(
        tokens, (DECODING_TOKENS, LINEAR_TOKENS), (1.0, calibration.long_all_reduce)
    )

    decodes, contexts, decode_ms = _columns(samples["decode_attention"])
    fits = decodes * contexts <= kv_cache_tokens
    decodes, contexts, decode_ms = decodes[fits], contexts[fits], decode_ms[fits]
    at_all, per_sequence, a_d = _least_squares(
        [np.ones_like(decodes), decodes, decodes * contexts],
        decode_ms,
        weights=1 / (np.interp(decodes, tokens, rest) + decode_ms),
    )

    chunks, priors, prefill_ms = _columns(samples["prefill_attention"])
    prefill_at_all, per_token, a_p = _least_squares(
        [np.ones_like(chunks), chunks, chunks * (priors + chunks / 2)],
        prefill_ms,
        weights=1 / (np.interp(chunks, tokens, rest) + prefill_ms),
    )

    attention = np.where(
        tokens <= DECODING_TOKENS, at_all + per_sequence * tokens, prefill_at_all + per_token * tokens
    )
    sequences = np.interp(tokens, *SEQUENCES_OF_TOKENS)
    f_ms = rest + logits + attention + 1000 * calibration.sequence_s * sequences
    long = tokens >= LINEAR_TOKENS
    at_all, per_token = _least_squares(
        [np.ones_like(tokens[long]), tokens[long]], f_ms[long], weights=1 / f_ms[long]
    )
    tokens = np.append(tokens, LAST_TOKENS)
    f_ms = _ascending(np.append(f_ms, at_all + per_token * LAST_TOKENS))
    return StepTiming(
        knot_tokens=tuple(int(n) for n in tokens),
        knot_s=tuple(_rounded(ms / 1000) for ms in f_ms),
        prefill_attention_s=_rounded(a_p / 1000),
        decode_attention_s=_rounded(calibration.decode_attention * a_d / 1000),
        kv_cache_tokens=kv_cache_tokens,
        overhead_s=calibration.overhead_s[samples["tp"]],
    )


def _columns(rows: Sequence[Sequence[float]]) -> tuple[_Floats, ...]:
    return tuple(np.array(column, float) for column in zip(*rows, strict=True))


def _least_squares(terms: Sequence[_Floats], times: _Floats, *, weights: _Floats) -> list[float]:
    """Coefficients of the terms, none negative: a term that wants to be is left out."""
    kept = list(range(len(terms)))
    while True:
        matrix = np.stack([terms[i] for i in kept], axis=1) * weights[:, None]
        scale = np.linalg.norm(matrix, axis=0)
        found = np.linalg.lstsq(matrix / scale, times * weights, rcond=None)[0] / scale
        if (found >= 0).all():
            return [float(found[kept.index(i)]) if i in kept else 0.0 for i in range(len(terms))]
        kept.pop(int(np.argmin(found)))


def _ascending(values: _Floats) -> _Floats:
    """The nearest that never falls: a larger step is not faster, so where one seems to be, both were measured with
    noise and get their mean."""
    runs: list[tuple[float, int]] = []
    for value in values:
        mean, count = float(value), 1
        while runs and runs[-1][0] >= mean:
            before, length = runs.pop()
            mean, count = (before * length + mean * count) / (length + count), length + count
        runs.append((mean, count))
    return np.repeat([mean for mean, _ in runs], [count for _, count in runs])


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
