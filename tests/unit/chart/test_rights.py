"""The operator holds the rights that its code uses, in the cluster, and no other."""

from __future__ import annotations

from collections.abc import Iterator

from paceline.controller import resources
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.rbac import router_role
from tests.unit.chart.conftest import Render, Rendered

Right = tuple[str, str, str]
"""(API group, resource, verb)"""

READ = ("get", "list", "watch")
OWN = (*READ, "create", "patch", "delete")
"""What a child needs; server-side apply is `create` and `patch`."""


def rights_of(rules: Rendered) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, resource, verb


def cluster_rights(render: Render, *settings: str) -> set[Right]:
    role = next(body for body in render(*settings) if body["kind"] == "ClusterRole")
    rights = list(rights_of(role["rules"]))
    assert len(rights) == len(set(rights)), "a right is given twice"
    return set(rights)


def wanted() -> Iterator[Right]:
    for resource in resources.CHILDREN:
        yield from ((resource.group, resource.plural, verb) for verb in OWN)
    for resource in (resources.POD, resources.NODE, resources.INFERENCE_SERVICE):
        yield from ((resource.group, resource.plural, verb) for verb in READ)
    # Its layout, told by an annotation.
    yield ("", "pods", "patch")
    # Of one that is much slower than its peers.
    yield ("", "pods", "delete")
    yield ("", "resourcequotas", "list")
    yield ("paceline.dev", "inferenceservices/status", "patch")
    # kopf's own: it hears of kinds that come and go.
    yield from (("apiextensions.k8s.io", "customresourcedefinitions", verb) for verb in ("list", "watch"))
    yield from (("", "events", verb) for verb in ("get", "create", "patch"))


def test_the_operator_holds_what_it_uses_and_nothing_more(render: Render) -> None:
    assert cluster_rights(render) == set(wanted())


def test_secrets_are_read_only_where_that_was_asked_for(render: Render) -> None:
    gained = cluster_rights(render, "hub.readTokens=true") - cluster_rights(render)
    assert gained == {("", "secrets", "get")}


def test_the_operator_holds_every_right_that_it_grants_to_a_router(render: Render) -> None:
    meta = ServiceMeta(
        name="chat",
        namespace="team",
        uid="u",
        generation=1,
        resource_version="1",
        created_at_s=0,
        deleting=False,
        annotations={},
        managed_fields=(),
    )
    # Otherwise the API server refuses the Role as an escalation.
    assert set(rights_of(router_role(meta)["rules"])) <= cluster_rights(render)


def test_the_lease_is_the_only_object_that_is_updated_by_name(render: Render) -> None:
    role = next(body for body in render() if body["kind"] == "Role")
    named = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert [rule["resourceNames"] for rule in named] == [["paceline-operator"]]
    assert set(rights_of(role["rules"])) == {
        ("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "update")
    }
