"""Which cores the ranks of a CPU engine compute on.

vLLM's own choice (`auto`) takes one NUMA node for each rank, leaves a core idle for its scheduler, and ends
the process where there are more ranks than nodes, so it is useless on a small machine. Here the cores that
the container may use are dealt out to the ranks; where there are more ranks than cores, cores are shared,
the first rank (which also gathers the results) keeping one for itself as long as it can:

    2 cores, 1 rank:  0,1          2 cores, 3 ranks:  0 | 1 | 1          8 cores, 3 ranks:  0,1,2 | 3,4,5 |
    6,7

A container with a CPU limit below its cores shares them with others, and the kernel must be free to move
it: two pods pinned to the same core while others idle would halve both. Then threads are counted, not
bound. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NO_BINDING = "nobind"


@dataclass(frozen=True, slots=True)
class CpuThreads:
    """Values of vLLM's VLLM_CPU_OMP_THREADS_BIND and of OMP_NUM_THREADS (None: left to vLLM)."""

    bind: str
    threads: int | None

    def to_env(self) -> dict[str, str]:
        environment = {
            "VLLM_CPU_OMP_THREADS_BIND": self.bind,
            # Threads that wait for the next kernel sleep. By default they spin, and keep the core from the
            # other ranks, the server and the pods beside: on two busy cores that halved the tokens per
            # second.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        return environment


def deal_cores(cores: Sequence[int], *, ranks: int, limit_cores: float | None) -> CpuThreads:
    """`cores` are those of the container's cpuset; `limit_cores` its CPU limit, None without one."""
    if limit_cores is not None and limit_cores < len(cores):
        return CpuThreads(bind=NO_BINDING, threads=max(1, math.ceil(limit_cores) // ranks))
    if ranks <= len(cores):
        each, more = divmod(len(cores), ranks)
        shares = []
        start = 0
        for rank in range(ranks):
            end = start + each + (1 if rank < more else 0)
            shares.append(cores[start:end])
            start = end
    else:
        shares = [(cores[-1 - (ranks - 1 - rank) * len(cores) // ranks],) for rank in range(ranks)]
    return CpuThreads(bind="|".join(",".join(map(str, share)) for share in shares), threads=None)
