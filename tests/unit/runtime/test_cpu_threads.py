"""Cores are dealt to ranks so that none idles while another waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline_runtime.launch.cpu_threads import CpuThreads, deal_cores


@pytest.mark.parametrize(
    ("cores", "ranks", "bind"),
    [
        ([0, 1], 1, "0,1"),
        ([0, 1], 2, "0|1"),
        ([0, 1], 3, "0|1|1"),
        ([0], 3, "0|0|0"),
        ([4, 5, 6, 7, 8, 9, 10, 11], 3, "4,5,6|7,8,9|10,11"),
        ([0, 1, 2, 3], 2, "0,1|2,3"),
    ],
)
def test_the_cores_of_the_container_are_dealt_out(cores: list[int], ranks: int, bind: str) -> None:
    assert deal_cores(cores, ranks=ranks, limit_cores=None) == CpuThreads(bind=bind, threads=None)


@pytest.mark.parametrize(("limit", "ranks", "threads"), [(1.0, 1, 1), (1.5, 1, 2), (4.0, 3, 1), (0.2, 1, 1)])
def test_a_container_with_less_than_its_cores_is_not_pinned(limit: float, ranks: int, threads: int) -> None:
    dealt = deal_cores(list(range(16)), ranks=ranks, limit_cores=limit)
    assert dealt == CpuThreads(bind="nobind", threads=threads)
    assert dealt.to_env() == {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(threads),
    }


@given(cores=st.lists(st.integers(0, 200), min_size=1, max_size=40, unique=True), ranks=st.integers(1, 60))
def test_every_rank_gets_a_core_and_every_core_a_rank(cores: list[int], ranks: int) -> None:
    shares = deal_cores(cores, ranks=ranks, limit_cores=None).bind.split("|")
    assert len(shares) == ranks
    dealt = [int(core) for share in shares for core in share.split(",")]
    assert set(dealt) == set(cores)
    if ranks <= len(cores):
        assert len(dealt) == len(cores)
