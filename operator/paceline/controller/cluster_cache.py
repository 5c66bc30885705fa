"""The cluster as last heard of: what the watches, the sweeps and the answers to our own writes said, newest
first.

Watches feed it, the reconciler reads it. It decides nothing and calls nobody. "Newer" is by
resourceVersion, which the API server defines as comparable within one resource: so an answer to a write and
the watch event about the same write may arrive in any order, and a late echo never brings back what was
deleted since.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from paceline.controller.resources import CHILDREN, INFERENCE_SERVICE, NODE, POD, SERVICE_LABEL, Resource
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import ChildKey, Node, Pod

Raw = dict[str, Any]
ObjectName = tuple[str, str]
"""(namespace, name)"""

GRAVES = 8192
"""How many deleted objects are remembered by uid. A late echo comes within seconds; this is minutes of
churn."""


class _Kind:
    """The objects of one kind by name, and by the service that their label names."""

    def __init__(self) -> None:
        self.by_name: dict[ObjectName, tuple[str, int]] = {}
        """uid and resourceVersion"""

        self.key_of: dict[ObjectName, ServiceKey] = {}


class ClusterCache:
    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {r.kind: _Kind() for r in (INFERENCE_SERVICE, *CHILDREN, POD, NODE)}
        self._services: dict[ServiceKey, Raw] = {}
        self._children: dict[ServiceKey, dict[ChildKey, Raw]] = {}
        self._unlabelled: dict[ServiceKey, dict[ChildKey, tuple[Raw, float]]] = {}
        self._pods: dict[ServiceKey, dict[str, Pod]] = {}
        self._nodes: dict[str, Node] = {}
        self._node_tuple: tuple[Node, ...] | None = None
        self._graves: OrderedDict[str, int] = OrderedDict()

    # reading

    def service(self, key: ServiceKey) -> Raw | None:
        return self._services.get(key)

    def services(self) -> Iterable[ServiceKey]:
        return list(self._services)

    def children(self, key: ServiceKey) -> dict[ChildKey, Raw]:
        """Those that carry our label, and those of a child's name that were found without it."""
        found = {child: raw for child, (raw, _) in self._unlabelled.get(key, {}).items()}
        return {**found, **self._children.get(key, {})}

    def pods(self, key: ServiceKey) -> tuple[Pod, ...]:
        return tuple(self._pods.get(key, {}).values())

    def nodes(self) -> tuple[Node, ...]:
        if self._node_tuple is None:
            self._node_tuple = tuple(self._nodes[name] for name in sorted(self._nodes))
        return self._node_tuple

    def count_by_ready(self) -> Mapping[str, int]:
        return Counter(_ready_of(raw) for raw in self._services.values())

    # hearing

    def put(self, resource: Resource, raw: Raw) -> bool:
        """Whether this is news that a plan could depend on."""
        meta = raw["metadata"]
        name, uid, version = _name(meta), meta["uid"], _version(meta)
        kind = self._kinds[resource.kind]
        known = kind.by_name.get(name)
        if self._graves.get(uid, -1) >= version:
            return False
        if known is not None and known[1] >= version:
            return False
        kind.by_name[name] = (uid, version)
        if resource.kind == NODE.kind:
            return self._put_node(raw)
        key = key_of(resource, raw)
        before = kind.key_of.get(name)
        if before is not None and (before != key or (known is not None and known[0] != uid)):
            self._drop(resource, before, name[1], uid=known[0] if known is not None else None)
        if key is None:
            # Not ours by label (an answer to a write, after somebody took the label off).
            kind.by_name.pop(name, None)
            kind.key_of.pop(name, None)
            return before is not None
        kind.key_of[name] = key
        if resource.kind == INFERENCE_SERVICE.kind:
            self._services[key] = raw
        elif resource.kind == POD.kind:
            pods = self._pods.setdefault(key, {})
            pod = Pod.parse(raw)
            news = pods.get(uid) != pod
            pods[uid] = pod
            return news
        else:
            self._children.setdefault(key, {})[(resource.kind, name[1])] = raw
            self._forget_unlabelled(key, (resource.kind, name[1]))
        return True

    def remove(
        self, resource: Resource, *, namespace: str, name: str, uid: str, version: int
    ) -> ServiceKey | None:
        """The service that lost something, or None where there is no news."""
        self._graves[uid] = max(version, self._graves.get(uid, -1))
        self._graves.move_to_end(uid)
        while len(self._graves) > GRAVES:
            self._graves.popitem(last=False)
        kind = self._kinds[resource.kind]
        known = kind.by_name.get((namespace, name))
        if known is None or known[0] != uid or known[1] > version:
            return None
        del kind.by_name[(namespace, name)]
        if resource.kind == NODE.kind:
            self._nodes.pop(name, None)
            self._node_tuple = None
            return None
        key = kind.key_of.pop((namespace, name), None)
        if key is not None:
            self._drop(resource, key, name, uid=uid)
        return key

    def remove_raw(self, resource: Resource, raw: Raw) -> ServiceKey | None:
        meta = raw["metadata"]
        namespace, name = _name(meta)
        return self.remove(resource, namespace=namespace, name=name, uid=meta["uid"], version=_version(meta))

    def is_gone(self, resource: Resource, key: ServiceKey, name: str) -> None:
        """The API server says that there is no such object, whatever the watch told last."""
        held = self._kinds[resource.kind].by_name.get((key.namespace, name))
        if held is not None:
            self.remove(resource, namespace=key.namespace, name=name, uid=held[0], version=held[1])
        self._forget_unlabelled(key, (resource.kind, name))

    def put_unlabelled(self, key: ServiceKey, resource: Resource, raw: Raw) -> None:
        """An object that bears the name of a child but not our label: no watch tells of it, nor of its
        going."""
        found = self._unlabelled.setdefault(key, {})
        found[(resource.kind, raw["metadata"]["name"])] = (raw, time.monotonic())

    def forget_unlabelled(self, key: ServiceKey, *, older_than_s: float = 0.0) -> None:
        """So that the writer looks whether they are still there."""
        until_s = time.monotonic() - older_than_s
        found = {child: one for child, one in self._unlabelled.get(key, {}).items() if one[1] > until_s}
        if found:
            self._unlabelled[key] = found
        else:
            self._unlabelled.pop(key, None)

    # sweeping

    def missing_from(
        self, resource: Resource, listed: Iterable[Raw], *, namespace: str | None, version: int
    ) -> list[tuple[ObjectName, str]]:
        """Objects held here that a list of that version, of one namespace or of all, no longer has: (name,
        uid)."""
        there = {_name(item["metadata"]): item["metadata"]["uid"] for item in listed}
        return [
            (name, uid)
            for name, (uid, held_version) in self._kinds[resource.kind].by_name.items()
            if held_version <= version and namespace in (None, name[0]) and there.get(name) != uid
        ]

    def older_than(self, resource: Resource, listed: Iterable[Raw]) -> list[ObjectName]:
        """Listed objects of which we hold an older version or none."""
        held = self._kinds[resource.kind].by_name
        return [
            name
            for item in listed
            if (name := _name(item["metadata"])) not in held or held[name][1] < _version(item["metadata"])
        ]

    # parts

    def _put_node(self, raw: Raw) -> bool:
        node = Node.parse(raw)
        if self._nodes.get(node.name) == node:
            return False
        self._nodes[node.name] = node
        self._node_tuple = None
        return True

    def _drop(self, resource: Resource, key: ServiceKey, name: str, *, uid: str | None) -> None:
        if resource.kind == INFERENCE_SERVICE.kind:
            self._services.pop(key, None)
            return
        if resource.kind == POD.kind:
            group: dict[Any, Any] = self._pods.get(key, {})
            group.pop(uid, None)
            if not group:
                self._pods.pop(key, None)
            return
        group = self._children.get(key, {})
        group.pop((resource.kind, name), None)
        if not group:
            self._children.pop(key, None)

    def _forget_unlabelled(self, key: ServiceKey, child: ChildKey) -> None:
        if (group := self._unlabelled.get(key)) is not None:
            group.pop(child, None)


def key_of(resource: Resource, raw: Raw) -> ServiceKey | None:
    """The service that an object belongs to by its label; None for one without."""
    meta = raw["metadata"]
    if resource.kind == INFERENCE_SERVICE.kind:
        return ServiceKey(meta["namespace"], meta["name"])
    service = (meta.get("labels") or {}).get(SERVICE_LABEL)
    return ServiceKey(meta["namespace"], service) if service else None


def version_of(raw: Raw) -> int:
    return _version(raw["metadata"])


def _name(meta: Mapping[str, Any]) -> ObjectName:
    return meta.get("namespace") or "", meta["name"]


def _version(meta: Mapping[str, Any]) -> int:
    return int(meta["resourceVersion"])


def _ready_of(raw: Raw) -> str:
    conditions = (raw.get("status") or {}).get("conditions") or ()
    return next((str(c.get("status")) for c in conditions if c.get("type") == "Ready"), "Unknown")
