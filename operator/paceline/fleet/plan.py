"""The whole of fleet in one call: observed cluster in, next actions and status out; called by the
controller.
"""

from paceline.fleet.actions import Plan
from paceline.fleet.observed import Observed
from paceline.fleet.settings import Settings


def plan(observed: Observed, *, settings: Settings) -> Plan:
    """The next actions for one service; the same input always gives the same plan."""
    raise NotImplementedError("the parts are landing one by one")
