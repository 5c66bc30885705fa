"""Fields of ours that another manager has changed: left alone for a grace time, then taken back.

Read from the managedFields of the child itself, so nothing needs to be remembered and a restarted operator
knows as much as before. Three cases for a field that we want to set and that holds another value now:

    owned by        meaning                                          what happens
    us (too)        we agreed with the others until now              applied, by force if there are others
    others only     somebody changed it under us: foreign            left out of the apply, then forced
    nobody, absent  somebody removed it                              applied at once

`replicas` written by an autoscaler (through the scale subresource) is never forced: the two would fight for
ever.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from paceline.fleet.names import ANNOTATION_FOREIGN_WRITER, MANAGER
from paceline.fleet.observed import Conflict, RawObject
from paceline.fleet.timestamps import rfc3339, unix_s

Step = str | tuple[tuple[str, Any], ...]
"""A field name, or the keys that pick one item of a list."""

Path = tuple[Step, ...]

REPLICAS: Path = ("spec", "replicas")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignField:
    kind: str
    name: str
    manager: str
    path: Path
    since_s: float
    autoscaler: bool

    @property
    def text(self) -> str:
        """As the API server writes it: `.spec.template.spec.containers[name="engine"].image`."""
        return path_text(self.path)

    @property
    def who(self) -> str:
        return f"{self.kind} {self.name} {self.text} held by {self.manager}"

    @property
    def sentence(self) -> str:
        """For the condition, in the form that `claim` reads back."""
        return f"{self.who} since {rfc3339(self.since_s)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What to send for one child: the object without what is left to others, and whether to force the
    rest."""

    object: dict[str, Any]
    force: bool
    foreign: tuple[ForeignField, ...]
    """Everything that others hold, also what this apply takes back."""

    reclaimed: tuple[ForeignField, ...]


def claim(
    desired: RawObject,
    *,
    live: RawObject,
    conflicts: Iterable[Conflict],
    annotations: Mapping[str, str],
    told: str,
    now_s: float,
    grace_s: float,
) -> Claim:
    """`told` is the message of the last ForeignWriter condition. A manager that writes its value again and
    again renews its time in managedFields; what was told before keeps the time of the first sight."""
    found = {one.path: one for one in foreign_fields(desired, live=live)}
    for conflict in conflicts:
        for path in _paths(desired):
            if path not in found and path_text(path) in conflict.fields:
                found[path] = ForeignField(
                    kind=conflict.kind,
                    name=conflict.name,
                    manager=conflict.manager,
                    path=path,
                    since_s=conflict.first_seen_s,
                    autoscaler=path == REPLICAS and _is_autoscaler(live, conflict.manager),
                )
    found = {path: _first_seen(one, told=told) for path, one in found.items()}
    keep = annotations.get(ANNOTATION_FOREIGN_WRITER) == "keep"
    reclaimed = tuple(
        one for one in found.values() if not keep and not one.autoscaler and now_s - one.since_s >= grace_s
    )
    body = copy.deepcopy(dict(desired)) if found else dict(desired)
    for one in found.values():
        if one not in reclaimed:
            _remove(body, one.path)
    return Claim(
        object=body,
        force=bool(reclaimed) or _is_shared(body, live=live),
        foreign=tuple(found.values()),
        reclaimed=reclaimed,
    )


def foreign_fields(desired: RawObject, *, live: RawObject) -> Iterator[ForeignField]:
    ours = list(_owned_sets(live, ours=True))
    for entry in _entries(live, ours=False):
        fields = entry.get("fieldsV1") or {}
        for path, wanted in _leaves(desired):
            if not _owns(fields, path) or _value(live, path) == wanted:
                continue
            manager = str(entry.get("manager", "unknown"))
            autoscaler = path == REPLICAS and _is_autoscaler(live, manager)
            if autoscaler or not any(_owns(own, path) for own in ours):
                yield ForeignField(
                    kind=str(desired["kind"]),
                    name=str(desired["metadata"]["name"]),
                    manager=manager,
                    path=path,
                    since_s=unix_s(entry["time"]) if entry.get("time") else 0.0,
                    autoscaler=autoscaler,
                )


def replicas_holder(live: RawObject) -> str | None:
    """The manager that took `spec.replicas` of a child from us, whatever value it wrote; an autoscaler also
    if it agrees with us for the moment."""
    is_ours = any(_owns(own, REPLICAS) for own in _owned_sets(live, ours=True))
    for entry in _entries(live, ours=False):
        manager = str(entry.get("manager", "unknown"))
        if _owns(entry.get("fieldsV1") or {}, REPLICAS) and (not is_ours or _is_autoscaler(live, manager)):
            return manager
    return None


def ignored_scale_writer(service_fields: Iterable[RawObject]) -> str | None:
    """Who wrote `replicas` of the service itself through /scale."""
    for entry in service_fields:
        if entry.get("subresource") == "scale" and _owns(
            entry.get("fieldsV1") or {}, ("spec", "scaling", "replicas")
        ):
            return str(entry.get("manager", "unknown"))
    return None


def _first_seen(one: ForeignField, *, told: str) -> ForeignField:
    _, found, rest = told.partition(f"{one.who} since ")
    if not found:
        return one
    try:
        since_s = unix_s(rest.split(";")[0].strip())
    except ValueError:
        return one
    return replace(one, since_s=min(one.since_s, since_s))


def path_text(path: Path) -> str:
    parts = []
    for step in path:
        if isinstance(step, str):
            parts.append(f".{step}")
        else:
            parts.append("[" + ",".join(f"{key}={json.dumps(value)}" for key, value in step) + "]")
    return "".join(parts)


def _entries(live: RawObject, *, ours: bool) -> Iterator[RawObject]:
    for entry in live["metadata"].get("managedFields") or ():
        is_ours = entry.get("manager") == MANAGER and entry.get("operation") == "Apply"
        if is_ours == ours and entry.get("subresource") != "status":
            yield entry


def _owned_sets(live: RawObject, *, ours: bool) -> Iterator[RawObject]:
    for entry in _entries(live, ours=ours):
        yield entry.get("fieldsV1") or {}


def _is_autoscaler(live: RawObject, manager: str) -> bool:
    """`kubectl scale` uses the same subresource, but a person behind it can be overruled."""
    return not manager.startswith("kubectl") and any(
        entry.get("manager") == manager and entry.get("subresource") == "scale"
        for entry in _entries(live, ours=False)
    )


def _is_shared(body: RawObject, *, live: RawObject) -> bool:
    """Whether a field that we change is held by us and by others: without force that would be refused."""
    others = [fields for fields in _owned_sets(live, ours=False) if fields]
    return bool(others) and any(
        any(_owns(fields, path) for fields in others) and _value(live, path) != wanted
        for path, wanted in _leaves(body)
    )


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Values of an object to apply, with lists that the API server merges by key opened up."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, list) and (keys := _list_keys(path, value)):
        for item in value:
            yield from _leaves(item, (*path, tuple((key, item[key]) for key in keys)))
    elif path and not _is_identity(path):
        yield path, value


def _paths(desired: RawObject) -> Iterator[Path]:
    for path, _ in _leaves(desired):
        yield path


def _is_identity(path: Path) -> bool:
    return path in (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"))


_LIST_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""Lists of our manifests that server-side apply merges by key; `ports` depends on whose they are."""


def _list_keys(path: Path, items: list[Any]) -> tuple[str, ...]:
    name = path[-1]
    keys: tuple[str, ...] = ()
    if name == "ports" and len(path) >= 2:
        in_service = path[:-1] == ("spec",)
        in_container = isinstance(path[-2], tuple)
        keys = ("port", "protocol") if in_service else ("containerPort", "protocol") if in_container else ()
    elif isinstance(name, str):
        keys = _LIST_KEYS.get(name, ())
    return keys if all(isinstance(item, Mapping) and set(keys) <= item.keys() for item in items) else ()


def _owns(fields: RawObject, path: Path) -> bool:
    """Whether a set in the form `fieldsV1` holds this very field, or one below or above it."""
    for depth, step in enumerate(path):
        if not fields:
            return depth > 0
        inner = fields.get(f"f:{step}") if isinstance(step, str) else _item_fields(fields, step)
        if inner is None:
            return False
        fields = inner
    return True


def _item_fields(fields: RawObject, keys: tuple[tuple[str, Any], ...]) -> RawObject | None:
    wanted = dict(keys)
    for key, inner in fields.items():
        if key.startswith("k:") and json.loads(key[2:]) == wanted:
            # `.` alone: the item exists for that manager, but none of its fields is its own.
            found: RawObject = inner
            return found if set(found) != {"."} else None
    return None


def _value(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, Mapping) else None
        else:
            items = value if isinstance(value, list) else []
            value = next((item for item in items if all(item.get(k) == v for k, v in step)), None)
        if value is None:
            return None
    return value


def _remove(body: dict[str, Any], path: Path) -> None:
    holder: Any = body
    for step in path[:-1]:
        holder = _value(holder, (step,))
        if holder is None:
            return
    last = path[-1]
    if isinstance(last, str) and isinstance(holder, dict):
        holder.pop(last, None)
