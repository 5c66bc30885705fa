"""No-op writes are skipped, and nothing that differs is."""

import copy
from typing import Any

import pytest

from paceline.controller.sameness import ANNOTATION_APPLIED, content_digest_of, digest_of, holds, is_applied

DESIRED: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "a", "labels": {"x": "1"}},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [{"name": "engine", "image": "i", "args": ["--a", "1"], "env": []}],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
                "tolerations": [{"key": "k", "operator": "Exists"}],
            }
        },
    },
}


def _live() -> dict[str, Any]:
    live = copy.deepcopy(DESIRED)
    live["metadata"] |= {"uid": "u", "resourceVersion": "7", "annotations": {"other": "1"}}
    live["spec"]["progressDeadlineSeconds"] = 600
    pod = live["spec"]["template"]["spec"]
    pod["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
    del pod["containers"][0]["env"]
    pod["containers"].insert(0, {"name": "injected-sidecar", "image": "s"})
    live["status"] = {"replicas": 2}
    return live


def test_defaults_and_additions_of_others_are_no_difference() -> None:
    assert holds(_live(), DESIRED)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("spec", "replicas"), 3, id="a number"),
        pytest.param(("metadata", "labels"), {}, id="a label that was taken off"),
        pytest.param(("spec", "template", "spec", "containers", 1, "image"), "j", id="an image"),
        pytest.param(
            ("spec", "template", "spec", "containers", 1, "args"), ["1", "--a"], id="the order of arguments"
        ),
        pytest.param(("spec", "template", "spec", "containers"), [], id="a missing container"),
        pytest.param(("spec", "template", "spec", "tolerations"), [], id="a missing toleration"),
        pytest.param(("spec", "template"), None, id="a missing branch"),
    ],
)
def test_a_foreign_change_of_a_wanted_value_is_a_difference(path: tuple[Any, ...], value: Any) -> None:
    live = _live()
    at = live
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    assert not holds(live, DESIRED)


def test_a_field_that_the_plan_dropped_is_noticed_by_the_digest() -> None:
    smaller = copy.deepcopy(DESIRED)
    del smaller["metadata"]["labels"]["x"]
    live = _live()
    live["metadata"]["annotations"][ANNOTATION_APPLIED] = digest_of(DESIRED)
    assert holds(live, smaller)
    assert is_applied(live, digest=digest_of(DESIRED))
    assert not is_applied(live, digest=digest_of(smaller))


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})


def test_status_and_bookkeeping_do_not_change_the_content_digest() -> None:
    live = _live()
    before = content_digest_of(live)
    live["status"] = {"replicas": 0}
    live["metadata"] |= {"resourceVersion": "8", "managedFields": [{}], "generation": 3}
    assert content_digest_of(live) == before
    live["spec"]["replicas"] = 9
    assert content_digest_of(live) != before
