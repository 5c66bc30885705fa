"""What the demo needs and what takes minutes the first time: programs and images, made side by side.

Programs keep the compiler busy, images wait for downloads half of the time. Called by the demo; what is made already costs a
look at it.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from e2e import helm
from e2e.cluster import binaries
from e2e.cluster.builder import Builder
from e2e.cluster.image_specs import BASE, BUNDLED_MODEL
from e2e.cluster.layout import REPOSITORY, Layout
from e2e.cluster.progress import step
from e2e.cluster.shell import run_logged

DEMO_IMAGES = ("operator", "router", "runtime-cpu")
_MODELS = (BUNDLED_MODEL, f"{BUNDLED_MODEL}-int8")
_MODELS_TIMEOUT_S = 3600


def prepare(layout: Layout) -> None:
    """Raises ClusterError; when one side fails, the other is made to its end first, and kept."""
    with ThreadPoolExecutor() as sides:
        made = [sides.submit(_programs, layout), sides.submit(_images, layout)]
    for side in made:
        side.result()


def _programs(layout: Layout) -> None:
    for programs in (*binaries.all_programs(), helm.program()):
        programs.ensure(layout)


def _images(layout: Layout) -> None:
    if not all((layout.models / name / "config.json").exists() for name in _MODELS):
        _make_models(layout)
    # The images of programs are the cluster's own, which makes them when it starts.
    Builder(layout).ensure((BASE, *DEMO_IMAGES))


def _make_models(layout: Layout) -> None:
    log = layout.images / "logs" / "models.log"
    with step(f"the bundled model in bf16 and INT8 (once; minutes, log in {log})"):
        command = [sys.executable, "-m", "e2e.environments", "models"]
        run_logged(command, log=log, timeout_s=_MODELS_TIMEOUT_S, cwd=REPOSITORY)
