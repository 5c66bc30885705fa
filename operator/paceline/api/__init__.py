"""The API of Paceline: `InferenceService` of `paceline.dev/v1alpha1` as models. Pure; everything else builds
on it."""

from paceline.api.accelerator import Accelerator, Toleration
from paceline.api.admission import Admission
from paceline.api.base import API_VERSION, GROUP, KIND, PLURAL, VERSION, LocalObjectReference
from paceline.api.endpoint import Endpoint
from paceline.api.model import KvCache, Model, ModelCache, Quantization
from paceline.api.observability import Observability
from paceline.api.placement import Disruption, Placement, TopologySpreadConstraint
from paceline.api.quantity import Quantity, bytes_of, quantity_value
from paceline.api.router import Hold, Router
from paceline.api.runtime import (
    EmulatedGpu,
    Emulation,
    EnvVar,
    EnvVarSource,
    KeySelector,
    Resources,
    Runtime,
)
from paceline.api.scaling import (
    GpuBudget,
    Override,
    ReplicaBounds,
    ScaleDown,
    ScaleToZero,
    Scaling,
    Transition,
)
from paceline.api.service import InferenceService, InferenceServiceSpec, ObjectMeta
from paceline.api.slo import LatencyClass, Slo, TimePerOutputToken, TimeToFirstToken
from paceline.api.status import (
    BurnRate,
    Condition,
    ConditionStatus,
    ConditionType,
    DecisionStatus,
    GpuCount,
    InferenceServiceStatus,
    ModelStatus,
    Refused,
    RefusedShape,
    Shape,
    Shapes,
    SloStatus,
    StragglerStatus,
    Summary,
    TransitionStatus,
    VariantStatus,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "Accelerator",
    "Admission",
    "BurnRate",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "DecisionStatus",
    "Disruption",
    "EmulatedGpu",
    "Emulation",
    "Endpoint",
    "EnvVar",
    "EnvVarSource",
    "GpuBudget",
    "GpuCount",
    "Hold",
    "InferenceService",
    "InferenceServiceSpec",
    "InferenceServiceStatus",
    "KeySelector",
    "KvCache",
    "LatencyClass",
    "LocalObjectReference",
    "Model",
    "ModelCache",
    "ModelStatus",
    "ObjectMeta",
    "Observability",
    "Override",
    "Placement",
    "Quantity",
    "Quantization",
    "Refused",
    "RefusedShape",
    "ReplicaBounds",
    "Resources",
    "Router",
    "Runtime",
    "ScaleDown",
    "ScaleToZero",
    "Scaling",
    "Shape",
    "Shapes",
    "Slo",
    "SloStatus",
    "StragglerStatus",
    "Summary",
    "TimePerOutputToken",
    "TimeToFirstToken",
    "Toleration",
    "TopologySpreadConstraint",
    "Transition",
    "TransitionStatus",
    "VariantStatus",
    "bytes_of",
    "quantity_value",
]
