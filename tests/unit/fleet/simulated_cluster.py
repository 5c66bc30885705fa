"""A small cluster in memory: objects as an API server keeps them, and the controllers that fleet lives with.

It does what the real ones do as far as fleet can see: server-side apply with field ownership, a Deployment
and its ReplicaSet as one controller that takes pods that are not Ready first, pods that drain before they
go. The tests move it by hand, in any order.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from paceline.api import InferenceService, InferenceServiceStatus
from paceline.fleet import (
    Apply,
    Delete,
    Node,
    Observed,
    Plan,
    Pod,
    PodInfo,
    Reshape,
    ServiceMeta,
    Settings,
    plan,
)
from paceline.fleet.advice import Advice
from paceline.fleet.timestamps import rfc3339
from paceline_core import LAYOUT_ANNOTATION
from tests.unit.fleet.services import NOW_S, SETTINGS, manifest, merged

Raw = dict[str, Any]


class Cluster:
    def __init__(self, spec: Mapping[str, Any], *, settings: Settings = SETTINGS, name: str = "chat") -> None:
        self.now_s = NOW_S
        self.settings = settings
        self.service: Raw = manifest(spec, name=name)
        self.children: dict[tuple[str, str], Raw] = {}
        self.pods: dict[str, Raw] = {}
        self.nodes: dict[str, Raw] = {}
        self.router_holds_still = False
        self.counter = 100
        self.advice: Advice | None = None
        for name in ("node-a", "node-b"):
            self.add_node(name)

    # what people do

    def edit(self, patch: Mapping[str, Any]) -> None:
        spec = merged(self.service["spec"], patch)
        if spec != self.service["spec"]:
            self.service["spec"] = spec
            self.service["metadata"]["generation"] += 1
            self._touch(self.service)

    def add_node(self, name: str) -> None:
        self.nodes[name] = {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {},
            "status": {
                "allocatable": {"nvidia.com/gpu": "8"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }

    def cordon(self, name: str, *, on: bool = True) -> None:
        self.nodes[name]["spec"]["unschedulable"] = on

    def delete_pod(self, name: str) -> None:
        if "deletionTimestamp" not in self.pods[name]["metadata"]:
            self.pods[name]["metadata"] |= {
                "deletionTimestamp": rfc3339(self.now_s + 705),
                "deletionGracePeriodSeconds": 705,
            }

    def evict(self, name: str) -> None:
        self._condition(self.pods[name], "DisruptionTarget", "True", "EvictionByEvictionAPI")
        self.delete_pod(name)

    def delete_child(self, kind: str, name: str) -> None:
        """Background deletion: the garbage collector deletes the pods."""
        gone = self.children.pop((kind, name))
        if kind == "Deployment":
            for pod in self.pods_of(gone):
                self.delete_pod(pod)

    # what fleet sees and does

    def observe(self) -> Observed:
        body = {k: v for k, v in self.service.items() if k != "status"}
        status = self.service.get("status")
        return Observed(
            now_s=self.now_s,
            service=InferenceService.from_manifest(body),
            meta=ServiceMeta.parse(self.service),
            status=InferenceServiceStatus.from_manifest(status) if status else None,
            children=copy.deepcopy(self.children),
            pods=tuple(self._parsed(pod) for pod in self.pods.values()),
            nodes=tuple(Node.parse(node) for node in self.nodes.values()),
            advice=self.advice,
        )

    def plan(self) -> Plan:
        return plan(self.observe(), settings=self.settings)

    def reconcile(self) -> Plan:
        made = self.plan()
        self.carry_out(made)
        return made

    def carry_out(self, made: Plan, *, actions: int | None = None) -> None:
        """As the controller does; with `actions`, the operator is killed after that many of them."""
        steps: list[Apply | Reshape | Delete] = [*made.apply, *made.reshape, *made.delete]
        if made.status_first or actions is None:
            self.write_status(made)
        for step in steps[:actions]:
            if isinstance(step, Apply):
                self.apply(step)
            elif isinstance(step, Reshape):
                self.reshape(step)
            else:
                self.delete(step)

    def write_status(self, made: Plan) -> None:
        self.service["status"] = made.status.to_manifest()
        self._touch(self.service)

    def apply(self, action: Apply) -> None:
        key = (action.kind, action.name)
        live = self.children.get(key)
        assert action.must_be_absent == (live is None), f"{key}: present {live is not None}"
        body = action.body()
        if live is None:
            live = {
                "metadata": {"uid": self._uid(), "creationTimestamp": rfc3339(self.now_s), "generation": 1}
            }
            before = None
        else:
            assert live["metadata"]["uid"] == action.uid
            if action.resource_version is not None:
                assert live["metadata"]["resourceVersion"] == action.resource_version
            before = copy.deepcopy(live)
        fields = _fields({k: v for k, v in action.object.items() if k not in ("apiVersion", "kind")})
        made = _applied(live, body)
        managed = made["metadata"].get("managedFields", ())
        ours = {"manager": "paceline", "operation": "Apply", "time": rfc3339(self.now_s), "fieldsV1": fields}
        # What is applied unchanged keeps its time.
        ours = next((one for one in managed if {**one, "time": ""} == {**ours, "time": ""}), ours)
        made["metadata"]["managedFields"] = [ours, *(one for one in managed if one["manager"] != "paceline")]
        if before is not None and before.get("spec") != made.get("spec"):
            made["metadata"]["generation"] += 1
        self.children[key] = made
        if before != made:
            self._touch(made)

    def reshape(self, action: Reshape) -> None:
        meta = self.pods[action.name]["metadata"]
        assert meta["uid"] == action.uid
        meta.setdefault("annotations", {}).update(action.body()["metadata"]["annotations"])

    def delete(self, action: Delete) -> None:
        if action.kind == "Pod":
            assert self.pods[action.name]["metadata"]["uid"] == action.uid
            self.delete_pod(action.name)
            return
        live = self.children.get((action.kind, action.name))
        assert live is not None
        assert live["metadata"]["uid"] == action.uid
        self.delete_child(action.kind, action.name)

    # what the cluster does

    def run_controllers(self) -> None:
        """Deployments make and take pods until the counts are right."""
        for (kind, name), child in list(self.children.items()):
            if kind != "Deployment":
                continue
            live = [pod for pod in self.pods_of(child) if self._is_live(pod)]
            wanted = child["spec"]["replicas"]
            for _ in range(wanted - len(live)):
                self._make_pod(child)
            for pod in sorted(live, key=self._rank)[: max(0, len(live) - wanted)]:
                self.delete_pod(pod)
            self._report(child, rolling=name.endswith("-router") and self.router_holds_still)

    def make_ready(self, name: str, *, ready: bool = True) -> None:
        pod = self.pods[name]
        pod["status"]["phase"] = "Running"
        pod["spec"]["nodeName"] = pod["spec"].get("nodeName") or self._pick_node()
        self._condition(pod, "PodScheduled", "True", "Scheduled")
        self._condition(pod, "Ready", "True" if ready else "False", "ContainersReady")

    def make_unschedulable(self, name: str) -> None:
        self._condition(self.pods[name], "PodScheduled", "False", "Unschedulable", "0/2 nodes: no GPUs")

    def start_in(self, name: str, layout: str, *, refused: str | None = None, start_s: float = 5.0) -> None:
        """The pod has started anew, and says in which layout; `refused` is why it is not the one ordered."""
        tp, dp = (int(part.partition("=")[2]) for part in layout.split(","))
        order = self.pods[name]["metadata"]["annotations"].get(LAYOUT_ANNOTATION)
        self.pods[name]["info"] = {
            "tensorParallelSize": tp,
            "dataParallelSize": dp,
            "stages": {"ready": start_s},
            "refusedLayout": None if refused is None else {"order": order, "message": refused},
        }
        self.make_ready(name, ready=False)
        self.make_ready(name)

    def say_verdict(self, name: str, text: str) -> None:
        terminated = {"exitCode": 78, "message": text}
        self.pods[name]["status"]["containerStatuses"] = [
            {"name": "engine", "restartCount": 1, "lastState": {"terminated": terminated}}
        ]

    def end_drains(self) -> None:
        self.pods = {n: pod for n, pod in self.pods.items() if "deletionTimestamp" not in pod["metadata"]}

    def settle(self, *, rounds: int = 40) -> None:
        """Everything goes well from here on, until nothing changes any more, not even with time."""
        seen = []
        for _ in range(rounds):
            self.reconcile()
            self.run_controllers()
            for name in list(self.pods):
                if self._is_live(name):
                    self.make_ready(name)
            self.run_controllers()
            self.end_drains()
            self.now_s += 10
            seen.append(self.fingerprint())
            if seen[-3:] == [seen[-1]] * 3:
                return
        raise AssertionError(f"nothing settled in {rounds} rounds: {self.fingerprint()}")

    # what tests ask

    def variants(self) -> dict[str, int]:
        """Replicas asked of each engine Deployment."""
        return {
            child["metadata"]["labels"]["paceline.dev/variant"]: child["spec"]["replicas"]
            for child in self.children.values()
            if child["kind"] == "Deployment" and "paceline.dev/variant" in child["metadata"]["labels"]
        }

    def engine(self, variant: str) -> Raw:
        return self.children["Deployment", f"chat-{variant}"]

    def engine_pods(self, variant: str | None = None) -> list[str]:
        return [
            name
            for name, pod in self.pods.items()
            if pod["metadata"]["labels"]["paceline.dev/component"] == "engine"
            and variant in (None, pod["metadata"]["labels"]["paceline.dev/variant"])
        ]

    def live(self, variant: str | None = None) -> list[str]:
        return [name for name in self.engine_pods(variant) if self._is_live(name)]

    def serving(self, variant: str | None = None) -> list[str]:
        return [name for name in self.live(variant) if self._is_ready(name)]

    @property
    def status(self) -> InferenceServiceStatus:
        return InferenceServiceStatus.from_manifest(self.service["status"])

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next(one for one in self.status.conditions if one.type == kind)
        return found.status, found.reason, found.message

    def fingerprint(self) -> Any:
        status = copy.deepcopy(self.service.get("status", {}))
        return (
            self.variants(),
            sorted(self.pods),
            {name: self._is_ready(name) for name in self.pods},
            status.get("transition"),
            status.get("refused"),
            {(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())},
        )

    def pods_of(self, deployment: Raw) -> list[str]:
        wanted = deployment["spec"]["selector"]["matchLabels"].items()
        return [n for n, pod in self.pods.items() if wanted <= pod["metadata"]["labels"].items()]

    def _parsed(self, raw: Raw) -> Pod:
        info = raw.get("info")
        return Pod.parse(copy.deepcopy(raw), info=PodInfo.parse(info) if info is not None else None)

    def _is_live(self, name: str) -> bool:
        return "deletionTimestamp" not in self.pods[name]["metadata"]

    def _is_ready(self, name: str) -> bool:
        return _condition_of(self.pods[name], "Ready") == "True"

    def _rank(self, name: str) -> tuple[bool, bool, float]:
        """A ReplicaSet takes the unscheduled first, then those not Ready, then the youngest."""
        pod = self.pods[name]
        return (bool(pod["spec"].get("nodeName")), self._is_ready(name), -pod["order"])

    def _make_pod(self, deployment: Raw) -> None:
        template = copy.deepcopy(deployment["spec"]["template"])
        uid = self._uid()
        name = f"{deployment['metadata']['name']}-{uid}"
        self.pods[name] = {
            "order": self.counter,
            "metadata": {
                **template["metadata"],
                "name": name,
                "uid": uid,
                "creationTimestamp": rfc3339(self.now_s),
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }

    def _report(self, deployment: Raw, *, rolling: bool) -> None:
        live = [pod for pod in self.pods_of(deployment) if self._is_live(pod)]
        ready = [pod for pod in live if self._is_ready(pod)]
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(live) + (1 if rolling else 0),
            "updatedReplicas": len(live),
            "readyReplicas": len(ready),
        }
        if deployment.get("status") != status:
            deployment["status"] = status
            self._touch(deployment)

    def _pick_node(self) -> str:
        """The emptier of the nodes that take pods, as the spread wants it."""
        load = {name: 0 for name, node in self.nodes.items() if not node["spec"].get("unschedulable")}
        for pod in self.pods.values():
            if pod["spec"].get("nodeName") in load:
                load[pod["spec"]["nodeName"]] += 1
        return min(load, key=lambda name: (load[name], name)) if load else next(iter(self.nodes))

    def _condition(self, pod: Raw, kind: str, status: str, reason: str, message: str = "") -> None:
        others = [one for one in pod["status"].get("conditions", ()) if one["type"] != kind]
        old = next((one for one in pod["status"].get("conditions", ()) if one["type"] == kind), None)
        same = old is not None and old["status"] == status
        since = old["lastTransitionTime"] if old is not None and same else rfc3339(self.now_s)
        made = {
            "type": kind,
            "status": status,
            "reason": reason,
            "lastTransitionTime": since,
            "message": message,
        }
        pod["status"]["conditions"] = [*others, made]

    def _uid(self) -> str:
        self.counter += 1
        return f"u{self.counter}"

    def _touch(self, thing: Raw) -> None:
        self.counter += 1
        thing["metadata"]["resourceVersion"] = str(self.counter)


def upgraded(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, **changes)


def _condition_of(pod: Raw, kind: str) -> str | None:
    found = (one["status"] for one in pod["status"].get("conditions", ()) if one["type"] == kind)
    return next(found, None)


def _applied(live: Raw, body: Raw) -> Raw:
    """Values of `body` over those of `live`; what `body` does not name stays."""
    made = copy.deepcopy(live)
    for key, value in body.items():
        if key == "resourceVersion":
            continue
        if isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = _applied(made[key], value)
        else:
            made[key] = copy.deepcopy(value)
    return made


def _fields(value: Any) -> Raw:
    """`fieldsV1` with every list as one field: enough where lists are not what is contested."""
    if isinstance(value, dict):
        return {f"f:{key}": _fields(inner) for key, inner in value.items()}
    return {}
