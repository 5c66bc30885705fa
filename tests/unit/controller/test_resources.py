"""The table of kinds agrees with the fleet's, and addresses are those of the API."""

from paceline.controller.resources import CHILDREN, INFERENCE_SERVICE, NODE
from paceline.fleet.observed import CHILD_KINDS


def test_the_children_are_those_of_the_fleet() -> None:
    assert {(one.api_version, one.kind) for one in CHILDREN} == set(CHILD_KINDS)


def test_addresses() -> None:
    assert INFERENCE_SERVICE.path("ns", "a", "status") == (
        "/apis/paceline.dev/v1alpha1/namespaces/ns/inferenceservices/a/status"
    )
    assert INFERENCE_SERVICE.path() == "/apis/paceline.dev/v1alpha1/inferenceservices"
    assert NODE.path(None, "n") == "/api/v1/nodes/n"
