"""The chart as Helm renders it: the real binary, no cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.helm import Helm, installed

CHART = Path(__file__).parents[3] / "charts" / "paceline"
Rendered = list[dict[str, Any]]
Render = Callable[..., Rendered]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Not skipped where Helm is missing: the error names the command that builds it."""
    return installed()


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    def render(*settings: str) -> Rendered:
        flags = [word for setting in settings for word in ("--set", setting)]
        text = helm.run("template", "paceline", str(CHART), "--namespace", "paceline-system", *flags)
        return [body for body in yaml.safe_load_all(text) if body]

    return render
