"""Paceline as a cluster's administrator installs it: the Helm chart, by the Helm of the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.helm import Helm

CHART = Path(__file__).resolve().parents[2] / "charts" / "paceline"


@dataclass(frozen=True, slots=True)
class Chart:
    """One release of the chart."""

    helm: Helm
    release: str
    namespace: str
    values: Mapping[str, str]
    """Set at every install: what this cluster needs to find its images."""

    def install(self, values: Mapping[str, str], *, typed: Mapping[str, Any] | None = None) -> None:
        """`helm upgrade --install` with ``values`` on top of the usual ones, until the operator is available.

        ``typed`` are values that are no text, by their top-level key.
        """
        settings = [f"--set-string={key}={value}" for key, value in {**self.values, **values}.items()]
        settings += [f"--set-json={key}={json.dumps(value)}" for key, value in (typed or {}).items()]
        self.helm.run(
            "upgrade",
            "--install",
            self.release,
            str(CHART),
            f"--namespace={self.namespace}",
            "--create-namespace",
            "--wait",
            "--timeout=180s",
            *settings,
            timeout_s=240,
        )

    def uninstall(self) -> None:
        self.helm.run("uninstall", self.release, f"--namespace={self.namespace}", "--wait", timeout_s=180)
