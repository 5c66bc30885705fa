"""Times that a pod and its Deployment must agree on when the pod leaves. Constants only.

The runtime keeps to the first three; the fleet adds them up into the pod's terminationGracePeriodSeconds.

    preStop ──► unrouting (≤ 60 s) ──► draining (≤ maxRequestSeconds) ──► SIGTERM, teardown (≤ 15 s) ──► slack
    ──► kill
"""

from typing import Final

UNROUTING_BOUND_S: Final = 60
"""Longest time that a leaving engine goes on accepting where no router can be asked whether it still
sends."""

QUIET_S: Final = 10
"""Time without an arrival, after the last router has forgotten the pod, until the pod stops accepting."""

TEARDOWN_S: Final = 15
"""vLLM's own end after SIGTERM: processes joined, GPU memory freed."""

SLACK_S: Final = 30
"""Between the end of everything and the kubelet's kill: a busy node starts hooks and polls late."""

GATE_ACCEPT_S: Final = 15
"""Time that a leaving gate goes on accepting while its address leaves every kube-proxy and client."""
