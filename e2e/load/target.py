"""Where load may go: this machine's loopback and the networks of its test cluster, nowhere else.

:class:`~e2e.load.openloop.OpenLoop` asks before the first request. A name is judged by what it resolves to.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

NETWORKS: Final = tuple(
    ipaddress.ip_network(network) for network in ("127.0.0.0/8", "::1/128", "10.96.0.0/12", "10.244.0.0/16")
)
"""Loopback; Services and the bridge of the test cluster (10.99.0.0/24 lies in 10.96.0.0/12); its pods."""


class ForeignTarget(ValueError):
    """The URL leads to a machine that load must not be sent to."""


def check(url: str) -> None:
    """Raise ForeignTarget unless every address behind `url` is ours."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ForeignTarget(f"{url!r}: give a URL of the form http://HOST[:PORT]")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ForeignTarget(f"{parts.hostname} does not resolve: {error.strerror}") from error
    for *_, address in found:
        ip = ipaddress.ip_address(address[0])
        if not any(ip in network for network in NETWORKS):
            raise ForeignTarget(
                f"{parts.hostname} is {ip}: load goes to loopback and the test cluster only "
                f"({', '.join(str(network) for network in NETWORKS)})"
            )
