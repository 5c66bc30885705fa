"""Reads operation times out of `aiconfigurator-core` and writes them as JSON. Run as a file, in another environment.

`paceline timing build` starts it with an interpreter that has aiconfigurator-core (Apache-2.0), which brings
pandas, pyarrow and 300 MB of data: too much for an operator. So it imports nothing of Paceline: a JSON list of
what to sample comes in at stdin, the samples go out at stdout. `timing_fit` makes tables of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

PACKAGE: Final = "aiconfigurator-core"

TOKENS: Final = (
    *(1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256),
    *(384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144),
)
"""Tokens of a step: dense enough where a GEMM's tiles make steps. Not 8192: there, and at no size beside it, products
were measured up to 15 % faster for each token than at 4096 and 6144, and steps of a served model are not (on H100)."""
DECODING_TOKENS: Final = 256
"""Up to here a step's tokens are taken as decoding sequences, beyond as a prefill: experts are chosen apart."""
SEQUENCES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS: Final = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
CHUNKS: Final = (128, 256, 512, 1024, 2048, 4096, 8192)
PRIORS: Final = (0, 1024, 2048, 4096, 8192, 16384)


def main() -> None:
    wanted = json.load(sys.stdin)
    json.dump({"version": version(PACKAGE), "samples": [_sample(one) for one in wanted]}, sys.stdout)


def _sample(wanted: dict[str, Any]) -> dict[str, Any]:
    """All times in ms."""
    engine = import_module("aiconfigurator_core.sdk").EngineHandle.compile(
        wanted["checkpoint"], wanted["system"], "vllm", tp_size=wanted["tp"], **wanted["options"]
    )

    def decode(sequences: int, context: int) -> list[Any]:
        return list(engine.decode_step_per_op(sequences, context, 2))

    def prefill(chunk: int, prior: int) -> list[Any]:
        return list(
            engine.run_static_per_op(batch_size=1, isl=prior + chunk, osl=2, prefix=prior, mode="static_ctx")[
                0
            ]
        )

    def tokens(count: int) -> list[float]:
        few = decode(min(count, DECODING_TOKENS), 1024)
        step = few if count <= DECODING_TOKENS else prefill(count, 0)
        return [count, _rest(step), _all_reduce(step), _logits(few)]

    return {
        **wanted,
        "tokens": [tokens(count) for count in TOKENS],
        "decode_attention": [[b, c, _attention(decode(b, c))] for b in SEQUENCES for c in CONTEXTS],
        "prefill_attention": [[n, p, _attention(prefill(n, p))] for n in CHUNKS for p in PRIORS],
    }


def _attention(operations: Iterable[Any]) -> float:
    return _sum(operations, lambda name: name.endswith("_attention"))


def _logits(operations: Iterable[Any]) -> float:
    """Only the last token of each sequence has logits."""
    return _sum(operations, lambda name: name.endswith("_logits_gemm"))


def _all_reduce(operations: Iterable[Any]) -> float:
    """Around experts it is named dispatch, which with tensor parallelism alone is an all-reduce too."""
    return _sum(operations, _is_all_reduce)


def _rest(operations: Iterable[Any]) -> float:
    apart = ("_attention", "_logits_gemm")
    return _sum(operations, lambda name: not name.endswith(apart) and not _is_all_reduce(name))


def _is_all_reduce(name: str) -> bool:
    return name.endswith(("_ar", "_ar_1", "_ar_2", "_dispatch"))


def _sum(operations: Iterable[Any], wanted: Callable[[str], bool]) -> float:
    return float(sum(ms for name, ms, *_ in operations if wanted(name)))


if __name__ == "__main__":
    main()
