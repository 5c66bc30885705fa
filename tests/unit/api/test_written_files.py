"""What is made from the models is in the repository as it would be made now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from paceline.api.crd import FILE_NAME, chart_yaml, crd_yaml
from paceline.api.reference import api_reference
from paceline.cli import main

ROOT = Path(__file__).parents[3]
CHART_COPY = Path("charts/paceline/templates/crds.yaml")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param(Path("crds") / FILE_NAME, crd_yaml, id="crd"),
        pytest.param(CHART_COPY, chart_yaml, id="chart"),
        pytest.param(Path("docs/api.md"), api_reference, id="reference"),
    ],
)
def test_a_written_file_has_not_drifted_from_the_models(path: Path, text: object) -> None:
    assert callable(text)
    assert (ROOT / path).read_text() == text(), (
        f"{path} is stale: run `paceline crds` and `paceline api-docs`"
    )


def test_check_passes_on_fresh_files_and_names_the_stale_one(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["crds", "--root", str(tmp_path)]).exit_code == 0
    assert runner.invoke(main, ["crds", "--root", str(tmp_path), "--check"]).exit_code == 0
    copy = tmp_path / CHART_COPY
    copy.write_text(copy.read_text().replace("keep", "delete"))
    checked = runner.invoke(main, ["crds", "--root", str(tmp_path), "--check"])
    assert checked.exit_code == 1
    assert str(copy) in checked.output
    assert FILE_NAME not in checked.output
    assert "run `paceline crds`" in checked.output


def test_the_chart_s_copy_is_the_same_definition_kept_on_uninstall() -> None:
    lines = [
        line for line in chart_yaml().splitlines() if not line.lstrip().startswith(("{{-", "labels: {{-"))
    ]
    definition = yaml.safe_load("\n".join(lines))
    assert definition["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert definition == yaml.safe_load(crd_yaml())


def test_no_text_of_the_schema_can_be_taken_for_a_template() -> None:
    """Helm would run what stands between double braces; the only ones are the chart's own."""
    braces = [line for line in chart_yaml().splitlines() if "{{" in line]
    assert len(braces) == 3


@pytest.mark.parametrize("command", ["api-docs", "crds", "operator", "serve"])
def test_each_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(main, [command, "--help"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(f"Usage: main {command}")


def test_the_repository_s_root_is_where_the_command_looks_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "crds", tmp_path / "crds")
    shutil.copytree(ROOT / "charts", tmp_path / "charts")
    monkeypatch.chdir(tmp_path)
    checked = CliRunner().invoke(main, ["crds", "--check"])
    assert checked.exit_code == 0, checked.output
