"""The cluster's certificates, made by the real openssl."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
import yaml

from e2e.cluster.certificates import Authority, Party, control_plane_parties, node_party
from e2e.cluster.topology import API_SERVICE_IP, CONTROL_PLANE_IP, Node


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.ensure([*control_plane_parties(), node_party(Node(1))])
    return authority


def _text(certificate: Path) -> str:
    words = ["openssl", "x509", "-in", str(certificate), "-noout", "-text"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_every_certificate_is_signed_by_the_one_authority(authority: Authority) -> None:
    for party in (*control_plane_parties(), node_party(Node(1))):
        ca, certificate = str(authority.certificate("ca")), str(authority.certificate(party.name))
        done = subprocess.run(
            ["openssl", "verify", "-CAfile", ca, certificate], capture_output=True, check=False
        )
        assert done.returncode == 0, party.name


def test_the_api_server_is_known_by_every_address_it_is_called_by(authority: Authority) -> None:
    text = _text(authority.certificate("apiserver"))
    for address in (CONTROL_PLANE_IP, API_SERVICE_IP, "127.0.0.1"):
        assert f"IP Address:{address}" in text
    assert "DNS:kubernetes.default.svc" in text


def test_a_kubelet_is_the_node_that_the_node_authorizer_knows(authority: Authority) -> None:
    text = _text(authority.certificate("paceline-1"))
    assert "O = system:nodes, CN = system:node:paceline-1" in text
    assert "IP Address:10.99.0.11" in text


def test_a_key_is_readable_by_its_owner_alone(authority: Authority) -> None:
    for key in authority.folder.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0, key


def test_a_certificate_is_kept_until_what_it_says_changes(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    before, after = Party("x", "/CN=x", ("IP:10.0.0.1",)), Party("x", "/CN=x", ("IP:10.0.0.2",))
    authority.ensure([before])
    first = authority.certificate("x").read_bytes()
    authority.ensure([before])
    assert authority.certificate("x").read_bytes() == first
    authority.ensure([after])
    assert "IP Address:10.0.0.2" in _text(authority.certificate("x"))


def test_a_kubeconfig_stands_alone(authority: Authority) -> None:
    config = yaml.safe_load(authority.kubeconfig("admin"))
    inside = config["users"][0]["user"]["client-certificate-data"]
    assert base64.b64decode(inside) == authority.certificate("admin").read_bytes()
    assert config["clusters"][0]["cluster"]["server"] == f"https://{CONTROL_PLANE_IP}:6443"
