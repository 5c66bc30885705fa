"""The service in mode Auto that the benchmarks of the operator have many of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

REPLICAS: Final = 3
SPEC: Final[Mapping[str, Any]] = {
    "model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct@main", "kvCache": {"size": "16Gi"}},
    "slo": {"preset": "Interactive"},
    "scaling": {
        "mode": "Auto",
        "replicas": REPLICAS,
        "tensorParallelSize": 1,
        "allowedTensorParallelSizes": [1, 2, 4],
        "replicaBounds": {"min": REPLICAS, "max": 8},
    },
    "accelerator": {"resourceName": "nvidia.com/gpu"},
    "runtime": {"maxSequences": 16},
}
