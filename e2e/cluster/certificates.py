"""The cluster's own certificates: one authority, and a key pair for every party that talks to the API server.

Called by the local cluster before it starts anything. Kept between runs; made again when a name or an
address of the party changed. By openssl, so that nothing has to be installed for it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from e2e.cluster.layout import CLUSTER_NAME
from e2e.cluster.shell import run
from e2e.cluster.topology import API_PORT, API_SERVICE_IP, CONTROL_PLANE_IP, DOMAIN, Node

DAYS = "3650"


@dataclass(frozen=True, slots=True)
class Party:
    """One certificate: its file name, its subject and what it may be reached by (empty for a pure client)."""

    name: str
    subject: str
    alternative_names: tuple[str, ...] = ()

    @property
    def extensions(self) -> tuple[str, ...]:
        usage = "serverAuth,clientAuth" if self.alternative_names else "clientAuth"
        basic = ("basicConstraints=critical,CA:FALSE", f"extendedKeyUsage={usage}")
        return (
            (*basic, f"subjectAltName={','.join(self.alternative_names)}")
            if self.alternative_names
            else basic
        )

    @property
    def fingerprint(self) -> str:
        """Changes with whatever is written into the certificate."""
        return hashlib.sha256(repr((self.subject, self.extensions)).encode()).hexdigest()


def control_plane_parties() -> tuple[Party, ...]:
    service = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{DOMAIN}",
    )
    names = tuple(f"DNS:{name}" for name in (*service, "localhost"))
    addresses = tuple(f"IP:{address}" for address in (CONTROL_PLANE_IP, API_SERVICE_IP, "127.0.0.1"))
    return (
        Party("apiserver", "/CN=kube-apiserver", names + addresses),
        Party("apiserver-kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
        Party("admin", "/O=system:masters/CN=kubernetes-admin"),
        Party("controller-manager", "/CN=system:kube-controller-manager"),
        Party("scheduler", "/CN=system:kube-scheduler"),
        Party("proxy", "/CN=system:kube-proxy"),
    )


def node_party(node: Node) -> Party:
    """The kubelet's one certificate: it serves logs and exec with it, and is a client of the API server."""
    return Party(
        node.name, f"/O=system:nodes/CN=system:node:{node.name}", (f"DNS:{node.name}", f"IP:{node.address}")
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """The folder of certificates: ``ca.crt``, ``NAME.crt``, ``NAME.key`` and the key of service accounts."""

    folder: Path

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def ensure(self, parties: Sequence[Party]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._ensure_root()
        for party in parties:
            self._ensure_party(party)

    def kubeconfig(self, party: str) -> str:
        """A kubeconfig that stands alone: the certificates are inside."""

        def inside(path: Path) -> str:
            return base64.b64encode(path.read_bytes()).decode()

        cluster = {
            "server": f"https://{CONTROL_PLANE_IP}:{API_PORT}",
            "certificate-authority-data": inside(self.certificate("ca")),
        }
        user = {
            "client-certificate-data": inside(self.certificate(party)),
            "client-key-data": inside(self.key(party)),
        }
        context = {"cluster": CLUSTER_NAME, "user": party}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": CLUSTER_NAME, "cluster": cluster}],
                "users": [{"name": party, "user": user}],
                "contexts": [{"name": CLUSTER_NAME, "context": context}],
                "current-context": CLUSTER_NAME,
            }
        )

    def _ensure_root(self) -> None:
        if not self.certificate("ca").exists():
            run(
                "openssl",
                "req",
                "-x509",
                *_NEW_KEY,
                "-keyout",
                self.key("ca"),
                "-out",
                self.certificate("ca"),
                "-days",
                DAYS,
                "-subj",
                f"/CN={CLUSTER_NAME}-ca",
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
            )
        if not self.key("service-accounts").exists():
            run("openssl", "genrsa", "-out", self.key("service-accounts"), "2048")

    def _ensure_party(self, party: Party) -> None:
        stamp = self.folder / f"{party.name}.made-from"
        root = hashlib.sha256(self.certificate("ca").read_bytes()).hexdigest()
        wanted = f"{root} {party.fingerprint}"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        extensions = [word for extension in party.extensions for word in ("-addext", extension)]
        run(
            "openssl",
            "req",
            "-x509",
            "-CA",
            self.certificate("ca"),
            "-CAkey",
            self.key("ca"),
            *_NEW_KEY,
            "-keyout",
            self.key(party.name),
            "-out",
            self.certificate(party.name),
            "-days",
            DAYS,
            "-subj",
            party.subject,
            *extensions,
        )
        stamp.write_text(wanted)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
