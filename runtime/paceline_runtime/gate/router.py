"""How `vllm-router` is started in a router pod: every flag, in one place.

`paceline-runtime router` calls :func:`argv` and becomes the router. The flags hold what was measured on
vllm-router 0.1.17; docs/gate.md tells each. Nothing here may depend on a service's shape or targets.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final, Literal, get_args

Policy = Literal["PowerOfTwo", "RoundRobin", "CacheAware"]

POLICIES: Final[Mapping[Policy, str]] = {
    "PowerOfTwo": "power_of_two",
    "RoundRobin": "round_robin",
    "CacheAware": "cache_aware",
}
assert set(POLICIES) == set(get_args(Policy))

METRICS_PORT: Final = 29000

ENVIRONMENT: Final[Mapping[str, str]] = {"RUST_LOG": "warn"}
"""The router's own --log-level takes `warning`, does not understand it and logs every choice at INFO."""

MAX_PAYLOAD_BYTES: Final = 64 * 1024 * 1024
"""Above the gate's own limit, so that the gate is the one that answers 413."""

_EQUALITY: Final = re.compile(r"[^\s=!]+=[^\s=]+")

TIMEOUT_SLACK_S: Final = 60
"""The router's time-out covers a whole answer. The gate's cut, which says why, must come first."""


def argv(
    *,
    namespace: str,
    selector: str,
    policy: Policy,
    max_request_s: int,
    port: int,
    engine_port: int,
) -> list[str]:
    """The command line of the router.

    `selector` is a label selector of equalities, `a=b,c=d`; ValueError for any other form, since the
    router compares labels for equality only.
    """
    labels = selector.split(",")
    for label in labels:
        if not _EQUALITY.fullmatch(label):
            raise ValueError(f"--selector {selector!r}: {label!r} is not of the form key=value")
    return [
        *(sys.executable, "-m", "vllm_router.launch_router"),
        # Whoever reaches the router can remove workers: it is for the gate beside it alone.
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--policy", POLICIES[policy]),
        *("--service-discovery", "--selector", *labels),
        *("--service-discovery-namespace", namespace),
        *("--service-discovery-port", str(engine_port)),
        # A queue overflow would open the breakers of healthy workers for a minute.
        "--disable-circuit-breaker",
        # Counts attempts: 2 is one more than the first.
        *("--retry-max-retries", "2"),
        # Discovery waits for one pod's port this long before it looks at the next; without the interval
        # each wait is 30 s.
        *("--worker-startup-timeout-secs", "5"),
        *("--worker-startup-check-interval", "1"),
        *("--request-timeout-secs", str(max_request_s + TIMEOUT_SLACK_S)),
        *("--max-payload-size", str(MAX_PAYLOAD_BYTES)),
        # Readiness is the kubelet's to say, every two seconds. The router's own check could only take out
        # a busy engine, and for two of these intervals.
        *("--health-check-interval-secs", "31536000"),
        *("--prometheus-host", "127.0.0.1"),
        *("--prometheus-port", str(METRICS_PORT)),
    ]
