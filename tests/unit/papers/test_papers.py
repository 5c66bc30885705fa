"""What the papers tell a newcomer to type exists, what they link to is there, and their manifests are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from paceline.api import InferenceService
from paceline.cli import COMMANDS

ROOT = Path(__file__).parents[3]
PAPERS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MANIFESTS = [
    (paper, block)
    for paper in PAPERS
    for block in re.findall(r"^```yaml\n(.*?)^```", paper.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if "kind: InferenceService" in block
]  # fmt: skip


def code_of(paper: Path) -> str:
    """Code blocks and inline code: prose may speak of what it likes."""
    return " ".join(re.findall(r"```.*?```|`[^`\n]+`", paper.read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.name))
def test_every_link_inside_the_repository_leads_somewhere(paper: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", paper.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (paper.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.name))
def test_every_command_that_a_paper_tells_to_type_exists(paper: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    code = code_of(paper)
    told = {
        word
        for line in re.findall(r"\bmake ((?:[a-z][a-z0-9-]*(?: (?=[a-z]))?)+)", code)
        for word in line.split()
    }
    assert told - targets == set()
    assert set(re.findall(r"(?:bin/|`)paceline ([a-z][a-z-]*)", code)) <= set(COMMANDS)


def test_the_papers_show_a_manifest() -> None:
    assert MANIFESTS


@pytest.mark.parametrize(("paper", "block"), MANIFESTS, ids=lambda one: getattr(one, "name", ""))
def test_every_manifest_is_one_that_the_api_takes(paper: Path, block: str) -> None:
    InferenceService.from_manifest(yaml.safe_load(block))
