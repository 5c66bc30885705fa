"""The router's command line is one that the pinned vllm-router takes, and means what we say it means."""

from __future__ import annotations

import pytest
from vllm_router.launch_router import parse_router_args

from paceline_runtime.gate import router


def argv(*, selector: str = "a=b,c=d", policy: router.Policy = "PowerOfTwo") -> list[str]:
    return router.argv(
        namespace="n", selector=selector, policy=policy, max_request_s=600, port=8010, engine_port=8000
    )


def test_every_flag_is_known_and_lands_where_it_should() -> None:
    parsed = parse_router_args(argv()[3:])
    assert (parsed.host, parsed.port) == ("127.0.0.1", 8010)
    assert parsed.prometheus_host == "127.0.0.1"
    assert parsed.service_discovery
    assert parsed.selector == {"a": "b", "c": "d"}
    assert parsed.service_discovery_namespace == "n"
    assert parsed.service_discovery_port == 8000
    assert parsed.disable_circuit_breaker
    assert parsed.retry_max_retries == 2
    assert parsed.worker_startup_timeout_secs == 5
    assert parsed.worker_startup_check_interval == 1
    assert parsed.request_timeout_secs >= 600
    assert parsed.max_payload_size > 32 * 1024 * 1024


@pytest.mark.parametrize("policy", ["PowerOfTwo", "RoundRobin", "CacheAware"])
def test_every_policy_is_one_of_the_routers(policy: router.Policy) -> None:
    assert parse_router_args(argv(policy=policy)[3:]).policy == router.POLICIES[policy]


@pytest.mark.parametrize("selector", ["", "a", "a=", "=b", "a!=b", "a==b", "a in (b)", "a=b,", "a=b c"])
def test_a_selector_that_the_router_cannot_compare_is_refused(selector: str) -> None:
    with pytest.raises(ValueError, match="not of the form key=value"):
        argv(selector=selector)
