"""The files that one node's programs read: pure, text out of a :class:`Node`.

Called by the local cluster. Inside its mount namespace a node sees the stock paths (/var/lib/kubelet,
/run/containerd): the kubelet's folder of device plugins cannot be moved, so three kubelets on one machine
would fight over it otherwise.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from e2e.cluster.topology import DNS_SERVICE_IP, DOMAIN, POD_CIDR, Node

PAUSE_IMAGE = "docker.io/paceline/pause:dev"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
FAKE_GPUS = 8

GPU_LABELS = {
    "nvidia.com/gpu.present": "true",
    "nvidia.com/gpu.count": str(FAKE_GPUS),
    "nvidia.com/gpu.product": "NVIDIA-H200",
    "nvidia.com/gpu.family": "hopper",
    "nvidia.com/gpu.memory": "143771",
    "nvidia.com/gpu.machine": "paceline-local",
    "nvidia.com/gpu.replicas": "1",
    "nvidia.com/gpu.compute.major": "9",
    "nvidia.com/gpu.compute.minor": "0",
    "nvidia.com/mig.capable": "true",
    "nvidia.com/mig.strategy": "single",
    # Not one of GPU feature discovery's: nobody shall take a figure from these for a GPU's.
    "paceline.dev/fake-gpus": "true",
}


def containerd() -> str:
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Where a process may not lower its own oom_score_adj, every pod fails without this.
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
"""


def cni(node: Node) -> str:
    """Pods hang on a bridge of the node. No masquerade: pods reach the cluster and nothing outside it."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": node.pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "paceline", "plugins": [bridge, ports]}, indent=2)


def kubelet(node: Node, *, ca: str, certificate: str, key: str, resolv_conf: str) -> str:
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": ca},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": DOMAIN,
        "resolvConf": resolv_conf,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        # 1.35 refuses cgroup v1 unless it is told.
        "failCgroupV1": False,
        "failSwapOn": False,
        # The default lowers the kubelet's own score, which a machine inside a machine may not.
        "oomScoreAdj": 0,
        "maxPods": 200,
        # The images are imported by hand and cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "registerNode": True,
        "syncFrequency": "10s",
        "shutdownGracePeriod": "0s",
    }
    return yaml.safe_dump(config, sort_keys=False)


def kube_proxy(node: Node, *, kubeconfig: str) -> str:
    config: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": kubeconfig},
        "healthzBindAddress": f"{node.address}:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # The table's size belongs to the machine, not to a node's network namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return yaml.safe_dump(config, sort_keys=False)


def node_labels() -> str:
    return ",".join(f"{key}={value}" for key, value in GPU_LABELS.items())
