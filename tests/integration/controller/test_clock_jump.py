"""The clock of the operator's machine jumps in the middle of a change, which ends as if it had not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.controller.cluster import Cluster, eventually, service
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.operators import Operators
from tests.integration.controller.repeated import repeated
from tests.integration.controller.test_crash import ended, serving

pytestmark = pytest.mark.apiserver

START_S = 6.0
"""Of a pod: the clock jumps while it starts."""

HOUR_S = 3600
"""Longer than the deadline of a change."""

WITHIN_S = 120

AHEAD_BY = """
import pathlib, time
told, real = pathlib.Path({path!r}), time.time
time.time = lambda: real() + float(told.read_text())
"""


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_change_during_which_the_clock_jumps_ends_as_without(
    cluster: Cluster, operators: Operators, tmp_path: Path, jump_s: int
) -> None:
    ahead, least = tmp_path / "ahead", 2
    ahead.write_text("0")

    def look() -> None:
        nonlocal least
        least = min(least, serving(cluster))

    cluster.create("InferenceService", service("chat", replicas=2, tensor_parallel_size=1))
    operator = operators.start(prelude=AHEAD_BY.format(path=str(ahead))).await_leading()
    with kubelet(cluster, start_s=START_S):
        eventually(lambda: ended(cluster, 1), within_s=WITHIN_S)
        with repeated(look, every_s=0.3):
            cluster.patch("InferenceService", "chat", {"spec": {"scaling": {"tensorParallelSize": 3}}})
            eventually(
                lambda: cluster.condition("chat", "Transitioning").get("status") == "True", within_s=WITHIN_S
            )
            ahead.write_text(str(jump_s))
            eventually(lambda: ended(cluster, 3), within_s=WITHIN_S)
        assert operator.is_leading()
    assert least == 2
    status = (cluster.get("InferenceService", "chat") or {})["status"]
    assert status["transition"]["id"] == 1
    assert "refused" not in status
