"""What the demo says while it waits: each change once, and never Ready for an older generation of the spec."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.demo.watch import NotReady, wait_ready
from e2e.kubectl import Kubectl, KubectlError

KUBECTL = """
import json, pathlib, sys
looks = pathlib.Path(sys.argv[1])
bodies = json.loads(looks.read_text())
print(json.dumps(bodies[0]))
looks.write_text(json.dumps(bodies[1:] or bodies))
"""


def look(ready: str, message: str, *, observed: int = 1) -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": ready, "reason": "R", "message": message},
        {"type": "SLOMet", "status": "Unknown", "reason": "NotMeasured", "message": "not measured"},
        {"type": "ForeignWriter", "status": "False", "reason": "None", "message": "nobody"},
    ]
    status = {"observedGeneration": observed, "conditions": conditions}
    return {"metadata": {"name": "chat", "generation": 1}, "status": status}


def kubectl_that_sees(folder: Path, *looks: dict[str, Any]) -> Kubectl:
    """A program in the place of kubectl that answers with one look after the other, then with the last."""
    (folder / "kubectl.py").write_text(KUBECTL, encoding="utf-8")
    (folder / "looks.json").write_text(json.dumps(looks), encoding="utf-8")
    words = (sys.executable, str(folder / "kubectl.py"), str(folder / "looks.json"))
    return Kubectl(words=words, namespace="default")


def test_each_change_is_told_once_and_what_says_nothing_not_at_all(tmp_path: Path) -> None:
    waiting = look("False", "0 of 1")
    kubectl = kubectl_that_sees(tmp_path, waiting, waiting, look("True", "1 of 1"))
    told: list[str] = []
    wait_ready(kubectl, "chat", timeout_s=30, tell=told.append)
    assert [line.split(maxsplit=3) for line in told] == [
        ["Ready", "False", "R", "0 of 1"],
        ["Ready", "True", "R", "1 of 1"],
    ]


def test_ready_of_an_older_generation_is_not_ready(tmp_path: Path) -> None:
    kubectl = kubectl_that_sees(tmp_path, look("True", "of the spec before", observed=0))
    with pytest.raises(NotReady, match="of the spec before"):
        wait_ready(kubectl, "chat", timeout_s=-1, tell=lambda line: None)


def test_no_status_at_all_points_to_the_operator(tmp_path: Path) -> None:
    kubectl = kubectl_that_sees(tmp_path, {"metadata": {"name": "chat", "generation": 1}})
    with pytest.raises(NotReady, match="does the operator run"):
        wait_ready(kubectl, "chat", timeout_s=-1, tell=lambda line: None)


def test_kubectls_own_words_are_the_error() -> None:
    broken = Kubectl(
        words=(sys.executable, "-c", "import sys; sys.exit('no such host')"), namespace="default"
    )
    with pytest.raises(KubectlError, match="no such host"):
        wait_ready(broken, "chat", timeout_s=5, tell=lambda line: None)
