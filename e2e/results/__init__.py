"""What the scenarios saw: a line of JSON for each, in files of this folder, and the tables of the documents from them.

    append("faults", scenario="test_…", requests=226, failed=0)     a scenario, at its end
    lines("faults")                                                 a campaign that goes on, and `tables`
    python -m e2e.results                                           the tables, in Markdown

Lines are only added: what a table shows is the last line of each scenario, or all lines of a campaign.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

Line = dict[str, Any]

FOLDER = Path(__file__).parent


def append(name: str, *, scenario: str, folder: Path = FOLDER, **figures: Any) -> str:
    """Add a line with the commit and the time to the file ``name``; the line as written."""
    line = json.dumps({"scenario": scenario, "commit": commit(), "at": time.strftime("%F %T"), **figures})
    with _file(name, folder).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return line


def lines(name: str, *, folder: Path = FOLDER) -> list[Line]:
    """All lines of the file ``name``, the oldest first; none where it was never written."""
    path = _file(name, folder)
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def commit() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, cwd=FOLDER, capture_output=True, text=True, check=True).stdout.strip()


def _file(name: str, folder: Path) -> Path:
    return folder / f"{name}.jsonl"
