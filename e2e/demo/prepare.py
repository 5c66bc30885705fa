"""What the demo needs and what takes minutes the first time: programs, models and images, made side by side.

Programs keep the compiler busy; models and images wait for downloads half of the time. Called by the demo; what is made
already costs a look at it.
"""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

from e2e import helm
from e2e.cluster import binaries
from e2e.cluster.builder import Builder
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import REPOSITORY, Layout
from e2e.cluster.progress import step
from e2e.cluster.shell import run_logged
from e2e.environments import made

_WITH_MODEL = "runtime-cpu"
DEMO_IMAGES = ("operator", "router", _WITH_MODEL)
_MODELS_TIMEOUT_S = 3600
_MADE_GB = 38
"""In all: the caches of Go and of wheels and the node's own copy of the images too."""
_NODE_KEEPS_FREE = 0.1
"""Share of the disk below which the kubelet takes no pods: its default for nodefs.available."""


def prepare(layout: Layout) -> None:
    """Raises ClusterError; when one side fails, the others are made to their ends first, and kept."""
    _check_room(layout)
    with ThreadPoolExecutor() as sides:
        made = [sides.submit(side, layout) for side in (_programs, _models, _images)]
    for side in made:
        side.result()
    # The images of programs are the cluster's own, which makes them when it starts.
    Builder(layout).ensure(DEMO_IMAGES)


def _check_room(layout: Layout) -> None:
    """Before minutes are spent: a node on a full disk takes no pods."""
    if binaries.kubernetes().are_built(layout):
        return
    layout.cache.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(layout.cache)
    wanted_gb = _MADE_GB + _NODE_KEEPS_FREE * disk.total / 1e9
    if disk.free / 1e9 < wanted_gb:
        raise ClusterError(
            f"{layout.cache}: {disk.free / 1e9:.0f} GB of the disk are free. The first time takes {_MADE_GB}, and a node "
            f"needs a tenth of the disk besides, {wanted_gb:.0f} GB in all: make room there, or let PACELINE_CACHE name "
            "a folder that has it"
        )


def _programs(layout: Layout) -> None:
    for programs in (*binaries.all_programs(), helm.program()):
        programs.ensure(layout)


def _images(layout: Layout) -> None:
    """As much of them as needs no model."""
    builder = Builder(layout)
    builder.ensure([name for name in DEMO_IMAGES if name != _WITH_MODEL])
    if not builder.is_built(_WITH_MODEL):
        builder.begin(_WITH_MODEL, stage="packages")


def _models(layout: Layout) -> None:
    if all(made(folder) for folder in (layout.bundled_model, layout.bundled_model_int8)):
        return
    log = layout.images / "logs" / "models.log"
    with step(f"the bundled model in bf16 and INT8 (once; minutes, log in {log})"):
        command = [sys.executable, "-m", "e2e.environments", "models"]
        # One thread: two would spin beside the compilers.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run_logged(command, log=log, timeout_s=_MODELS_TIMEOUT_S, env=environment, cwd=REPOSITORY)
