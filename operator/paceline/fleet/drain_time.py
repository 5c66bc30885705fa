"""How long a pod may take to leave: computed here for both kinds of pods, and nowhere else.

A pod that is told to leave first goes on accepting until nobody sends to it any more, then finishes what
runs. The kubelet must not kill it before: its grace covers the longest request and everything around it.
"""

from __future__ import annotations

from paceline.api import InferenceService
from paceline_core import GATE_ACCEPT_S, SLACK_S, TEARDOWN_S, UNROUTING_BOUND_S


def engine_grace_s(service: InferenceService) -> int:
    """terminationGracePeriodSeconds of an engine pod."""
    return service.spec.admission.max_request_seconds + UNROUTING_BOUND_S + TEARDOWN_S + SLACK_S


def router_grace_s(service: InferenceService) -> int:
    """terminationGracePeriodSeconds of a router pod: the router beside the gate ends only after the gate
    has. A request may be held before it runs; the slack covers the usual hold."""
    hold_s = max(service.spec.hold_seconds - SLACK_S, 0)
    return service.spec.admission.max_request_seconds + hold_s + GATE_ACCEPT_S + SLACK_S
