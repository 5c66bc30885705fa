"""A mistake in the values is refused by Helm, by the name of the value, before anything reaches a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.helm import HelmError
from tests.unit.chart.conftest import CHART, Render

MISTAKES = {
    "a-typing-error": ("operator.replica=2", "/operator"),
    "a-typing-error-at-the-top": ("operators.replicas=2", "operators"),
    "no-operator": ("operator.replicas=0", "/operator/replicas"),
    "more-than-two-only-wait": ("operator.replicas=3", "/operator/replicas"),
    "not-a-number": ("operator.replicas=two", "/operator/replicas"),
    "no-way-to-tell-prometheus": (
        "prometheus.podLabels.app\\.kubernetes\\.io/name=null",
        "/prometheus/podLabels",
    ),
    "not-a-url": ("hub.endpoint=huggingface.co", "/hub/endpoint"),
    "negative-time": ("operator.foreignWriterGraceSeconds=-1", "/operator/foreignWriterGraceSeconds"),
    "not-a-boolean": ("operator.networkPolicy.enabled=yes", "/operator/networkPolicy/enabled"),
    "not-a-quantity": ("operator.resources.limits.memory=1GB", "/operator/resources/limits/memory"),
    "limit-for-limits": ("operator.resources.limit.memory=1Gi", "/operator/resources"),
    "label-not-a-string": ("operator.nodeSelector.gpu=true", "/operator/nodeSelector/gpu"),
    "toleration": ("operator.tolerations[0].operator=Equals", "/operator/tolerations/0/operator"),
    "pull-policy": ("images.pullPolicy=Sometimes", "/images/pullPolicy"),
    "name-for-repository": ("images.router.name=router", "/images/router"),
    "an-image-that-does-not-exist": ("images.runtime.tag=dev", "/images"),
    "upper-case": ("images.operator.repository=Paceline/Operator", "/images/operator/repository"),
    "colon-in-tag": ("images.operator.tag=a:b", "/images/operator/tag"),
    "text-for-an-image": ("images.router=docker.io/paceline/router:dev", "/images/router"),
    "text-for-a-reference": ("imagePullSecrets[0]=registry", "/imagePullSecrets/0"),
    "crds": ("crds.install=maybe", "/crds/install"),
    "crds-are-always-kept": ("crds.keep=false", "/crds"),
    "unit-not-in-the-name": ("podMonitor.interval=15s", "/podMonitor"),
    "no-gpus-at-all": ("decisions.clusterGpuBudget=0", "/decisions/clusterGpuBudget"),
    "a-budget-of-text": ("decisions.clusterGpuBudget=all", "/decisions/clusterGpuBudget"),
    "no-pause": ("podMonitor.intervalSeconds=0", "/podMonitor/intervalSeconds"),
    "nothing-is-accepted-and-ignored": ("prometheus.address=http://p", "/prometheus"),
}
"""what is wrong -> (setting, the place that the refusal must name)"""


@pytest.mark.parametrize(("setting", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_value_is_refused_by_its_name(render: Render, setting: str, named: str) -> None:
    with pytest.raises(HelmError, match="values don't meet the specifications") as refused:
        render(setting)
    assert named in str(refused.value)


def objects(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if schema.get("type") == "object" and at != "/properties/global":
        yield at, schema
    for key, value in schema.items():
        for name, part in (
            [(key, value)] if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
        ):
            if isinstance(part, dict):
                yield from objects(part, f"{at}/{name}")


def test_no_part_of_the_schema_lets_unknown_values_pass() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    found = dict(objects(schema))
    assert len(found) > 10
    assert [at for at, part in found.items() if part.get("additionalProperties", True) is True] == []
