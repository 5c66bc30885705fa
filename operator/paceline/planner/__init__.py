"""Decides the shape of a service: observation in, decision out. Pure: no clock, no I/O, no Kubernetes."""

from paceline.planner.codec import (
    decision_from_json,
    decision_to_json,
    observation_from_json,
    observation_to_json,
    state_from_json,
    state_to_json,
)
from paceline.planner.decision import Candidate, Decision, Limit, Prediction, Reason, Switch
from paceline.planner.observation import (
    MISSING,
    Figure,
    Goal,
    Grant,
    Group,
    InPlace,
    Lengths,
    NodeGpus,
    Observation,
    Quantiles,
    Shape,
    SharedLimit,
    StartTime,
    Traffic,
    Trust,
)
from paceline.planner.planner import Planner
from paceline.planner.settings import PlannerSettings
from paceline.planner.sleep import Door, Doors, Rest
from paceline.planner.state import PlannerState

__all__ = [
    "MISSING",
    "Candidate",
    "Decision",
    "Door",
    "Doors",
    "Figure",
    "Goal",
    "Grant",
    "Group",
    "InPlace",
    "Lengths",
    "Limit",
    "NodeGpus",
    "Observation",
    "Planner",
    "PlannerSettings",
    "PlannerState",
    "Prediction",
    "Quantiles",
    "Reason",
    "Rest",
    "Shape",
    "SharedLimit",
    "StartTime",
    "Switch",
    "Traffic",
    "Trust",
    "decision_from_json",
    "decision_to_json",
    "observation_from_json",
    "observation_to_json",
    "state_from_json",
    "state_to_json",
]
