"""The command lines of the control plane: pure, one list of words per program.

Called by the local cluster. Every port but the API server's own is on loopback, away from the stock
numbers, so that a test's own control plane can stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.certificates import Authority
from e2e.cluster.layout import Layout
from e2e.cluster.topology import (
    API_PORT,
    CONTROL_PLANE_IP,
    DOMAIN,
    ETCD_PEER_PORT,
    ETCD_PORT,
    POD_CIDR,
    SERVICE_CIDR,
)

_ETCD = f"http://127.0.0.1:{ETCD_PORT}"
_ETCD_PEER = f"http://127.0.0.1:{ETCD_PEER_PORT}"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """etcd, the API server, the controller manager and the scheduler of one cluster."""

    layout: Layout
    programs: Path
    authority: Authority

    def kubeconfig(self, party: str) -> Path:
        return self.layout.state / f"{party}.kubeconfig"

    def etcd(self) -> list[str | Path]:
        return [
            self.programs / "server", "--name=paceline", f"--data-dir={self.layout.etcd}",
            f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}",
            f"--listen-peer-urls={_ETCD_PEER}", f"--initial-advertise-peer-urls={_ETCD_PEER}",
            f"--initial-cluster=paceline={_ETCD_PEER}", "--log-level=warn",
            # The data lives no longer than the cluster does.
            "--unsafe-no-fsync",
        ]  # fmt: skip

    def api_server(self) -> list[str | Path]:
        ca = self.authority.certificate("ca")
        accounts = self.authority.key("service-accounts")
        return [
            self.programs / "kube-apiserver",
            f"--etcd-servers={_ETCD}",
            f"--bind-address={CONTROL_PLANE_IP}", f"--advertise-address={CONTROL_PLANE_IP}",
            f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--client-ca-file={ca}",
            f"--tls-cert-file={self.authority.certificate('apiserver')}",
            f"--tls-private-key-file={self.authority.key('apiserver')}",
            f"--kubelet-certificate-authority={ca}",
            f"--kubelet-client-certificate={self.authority.certificate('apiserver-kubelet-client')}",
            f"--kubelet-client-key={self.authority.key('apiserver-kubelet-client')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={accounts}", f"--service-account-signing-key-file={accounts}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
        ]  # fmt: skip

    def controller_manager(self) -> list[str | Path]:
        kubeconfig = self.kubeconfig("controller-manager")
        return [
            self.programs / "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1", "--secure-port=23157",
            f"--root-ca-file={self.authority.certificate('ca')}",
            f"--service-account-private-key-file={self.authority.key('service-accounts')}",
            f"--cluster-signing-cert-file={self.authority.certificate('ca')}",
            f"--cluster-signing-key-file={self.authority.key('ca')}",
            f"--cluster-cidr={POD_CIDR}", "--allocate-node-cidrs=false",
            "--use-service-account-credentials=true",
            "--leader-elect=false", "--profiling=false",
        ]  # fmt: skip

    def scheduler(self) -> list[str | Path]:
        kubeconfig = self.kubeconfig("scheduler")
        return [
            self.programs / "kube-scheduler",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1", "--secure-port=23159",
            "--leader-elect=false", "--profiling=false",
        ]  # fmt: skip
