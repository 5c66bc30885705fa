"""Names, addresses and configuration of the nodes."""

from __future__ import annotations

import ipaddress
import json
import tomllib

import pytest
import yaml

from e2e.cluster import binaries, node_config
from e2e.cluster.errors import ClusterError
from e2e.cluster.topology import API_SERVICE_IP, DNS_SERVICE_IP, POD_CIDR, SERVICE_CIDR, Node, Topology


def test_nodes_share_no_name_address_link_cgroup_or_pod_network() -> None:
    nodes = Topology(3).nodes
    for what in ("name", "address", "link", "cgroup", "pod_cidr"):
        assert len({getattr(node, what) for node in nodes}) == 3, what
    for node in nodes:
        assert ipaddress.IPv4Network(node.pod_cidr).subnet_of(ipaddress.IPv4Network(POD_CIDR))
        assert len(node.link) <= 15


def test_the_well_known_services_lie_in_the_service_network() -> None:
    for address in (API_SERVICE_IP, DNS_SERVICE_IP):
        assert ipaddress.ip_address(address) in ipaddress.ip_network(SERVICE_CIDR)


def test_services_are_reached_through_a_living_node() -> None:
    topology = Topology(3)
    assert topology.entrance == Node(1)
    assert topology.without(1).entrance == Node(2)
    assert topology.without(1).with_(1) == topology
    assert Topology(1).without(1).entrance is None


def test_a_topology_is_read_back_as_it_was_written() -> None:
    topology = Topology(3).without(2)
    assert Topology.from_json(topology.to_json()) == topology


def test_a_kubelet_serves_its_own_address_and_nobody_anonymous() -> None:
    config = yaml.safe_load(
        node_config.kubelet(Node(2), ca="/ca", certificate="/crt", key="/key", resolv_conf="/resolv")
    )
    assert config["address"] == "10.99.0.12"
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["cgroupRoot"] == "/paceline/paceline-2"
    assert config["imageGCHighThresholdPercent"] == 100


def test_containerds_configuration_is_toml_and_names_the_imported_pause_image() -> None:
    cri = tomllib.loads(node_config.containerd())["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == "docker.io/paceline/pause:dev"
    assert cri["restrict_oom_score_adj"] is True


def test_pods_get_addresses_of_their_own_nodes_network() -> None:
    bridge = json.loads(node_config.cni(Node(3)))["plugins"][0]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]
    assert bridge["ipMasq"] is False


@pytest.mark.parametrize(
    "go_mod",
    [
        pytest.param("require k8s.io/kubernetes v1.34.4\n", id="one line"),
        pytest.param("require (\n\tother v1.0.0\n\tk8s.io/kubernetes v1.34.4 // indirect\n)\n", id="block"),
    ],
)
def test_a_version_is_read_from_go_mod(go_mod: str) -> None:
    assert binaries.required_version(go_mod, "k8s.io/kubernetes") == "v1.34.4"


def test_a_module_that_go_mod_lacks_is_named() -> None:
    with pytest.raises(ClusterError, match=r"does not require k8s\.io/kubernetes"):
        binaries.required_version("require k8s.io/api v0.34.4\n", "k8s.io/kubernetes")
