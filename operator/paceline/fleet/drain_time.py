"""How long a pod may take to leave: computed here for both kinds of pods, and nowhere else.

A pod that is told to leave first goes on accepting until nobody sends to it any more, then finishes what
runs. The kubelet must not kill it before: its grace covers the longest request and everything around it.
"""

from __future__ import annotations

from paceline.api import InferenceService

UNROUTING_S = 60
"""Bound of the engine pod's wait until it is in no router's list (where no router can be asked)."""

ENGINE_TEARDOWN_S = 15
"""vLLM's processes ending and giving back their memory after the last request."""

SLACK_S = 30
"""A node under load runs everything late: the exec of the preStop hook, the probes, the kubelet itself."""

GATE_ACCEPTING_S = 15
"""How long a router pod goes on accepting while its address leaves the endpoints of every node."""


def engine_grace_s(service: InferenceService) -> int:
    """terminationGracePeriodSeconds of an engine pod."""
    return service.spec.admission.max_request_seconds + UNROUTING_S + ENGINE_TEARDOWN_S + SLACK_S


def router_grace_s(service: InferenceService) -> int:
    """terminationGracePeriodSeconds of a router pod: the router beside the gate ends only after the gate
    has."""
    return service.spec.admission.max_request_seconds + GATE_ACCEPTING_S + SLACK_S
