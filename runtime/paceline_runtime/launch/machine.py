"""What this container may use: cores, CPU limit, memory. Read from the kernel; None is no limit, or not
known."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""As Linux names them on x86 and on ARM."""

_NO_LIMIT_BYTES = 1 << 60
"""cgroup v1 writes a number of this size for "none"."""


def cores() -> list[int]:
    """Logical cores of the cpuset."""
    return sorted(os.sched_getaffinity(0))


def cpu_limit_cores() -> float | None:
    """The container's CPU limit in cores."""
    if (v2 := _read(_CGROUP / "cpu.max")) is not None:
        quota, period = v2.split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us = _read(_CGROUP / "cpu" / "cpu.cfs_quota_us")
    period_us = _read(_CGROUP / "cpu" / "cpu.cfs_period_us")
    if quota_us is None or period_us is None or int(quota_us) <= 0:
        return None
    return int(quota_us) / int(period_us)


def computes_bf16() -> bool:
    """Whether the CPU has instructions for 16-bit floats. Without them every product is widened and narrowed again."""
    text = _read(_CPUINFO) or ""
    return not _BF16_FEATURES.isdisjoint(text.split())


def memory_limit_bytes() -> int | None:
    """The container's memory limit."""
    limit = _read(_CGROUP / "memory.max") or _read(_CGROUP / "memory" / "memory.limit_in_bytes")
    if limit is None or limit == "max" or int(limit) >= _NO_LIMIT_BYTES:
        return None
    return int(limit)


def gpu_memory_bytes() -> int | None:
    """Memory of the first GPU that this container has; None without a driver."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    try:
        handle = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)) != 0:
            return None
        memory = (ctypes.c_ulonglong * 3)()  # total, free, used
        return int(memory[0]) if nvml.nvmlDeviceGetMemoryInfo(handle, memory) == 0 else None
    finally:
        nvml.nvmlShutdown()


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
