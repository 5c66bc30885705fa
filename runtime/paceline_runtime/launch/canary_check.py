"""The canary of a start: measured, and held against that of the pods that served before.

Both engines call it between warm-up and readiness, the emulated one with log-probabilities that it makes up and the
speed of its table.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from paceline_core import Canary, CanaryError, Reference, Speed
from paceline_core.canary import EDITION
from paceline_runtime.launch.failure import Refused
from paceline_runtime.launch.options import ServeOptions
from paceline_runtime.vllm_plugin.settings import ModelFacts

log = structlog.get_logger(__name__)


def checked(
    log_probabilities: tuple[float, ...] | None,
    *,
    token_s: float | None,
    options: ServeOptions,
    model: ModelFacts,
) -> Canary | None:
    """`token_s`: for each token of one request alone. None: the engine does not tell log-probabilities. Raises Refused
    where it answers otherwise than the pods before, or later than they let expect."""
    if not log_probabilities:
        log.warning("canary_unknown", says="this engine tells no log-probabilities: nothing is compared")
        return None
    size = options.tensor_parallel_size
    measured = Canary(
        of=_of(options, model),
        log_probabilities=log_probabilities,
        speed=Speed(tensor_parallel_size=size, token_s=round(token_s, 6)) if token_s is not None else None,
    )
    reference = _reference(options.canary_reference)
    if reference is None:
        log.info("canary", compared=False, says="no reference")
    elif (objection := reference.objection_to(measured)) is not None:
        raise Refused(
            f"{objection}. Look at the GPUs, the image and the arguments; if it is meant to be so, write "
            "spec.transition.canary.mode: Disabled",
            field="spec.transition.canary",
        )
    else:
        log.info("canary", compared=measured.of == reference.canary.of)
    return measured


def _of(options: ServeOptions, model: ModelFacts) -> str:
    """All that may change the answers, and not what must not: sizes, images, limits."""
    name = model.uri.partition("@")[0]
    formats = f"{options.weights}/{options.weights_source} weights, {options.kv_cache_dtype} KV cache"
    return f"canary {EDITION}, {name} at {model.revision}, {formats}"


def _reference(path: Path) -> Reference | None:
    try:
        return Reference.parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, CanaryError) as error:
        log.error("canary_reference_unreadable", path=str(path), error=str(error))
        return None
