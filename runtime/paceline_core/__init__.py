"""What both sides share, pure: latency targets, checkpoint facts and fit, model uris, canaries, the times of a drain, GPU timing.

Imported by the operator and by the runtime, which do not know each other. It reads no clock, and no file but its own tables.
"""

from paceline_core.canary import Canary, CanaryError, Reference, Speed
from paceline_core.checkpoint import (
    BUNDLED_FACTS,
    NOT_QUANTIZED,
    CheckpointFacts,
    FileFormat,
    QuantizationFacts,
    WeightsName,
    file_format_of,
    weights_bytes_of_header,
    weights_bytes_of_index,
)
from paceline_core.drain import GATE_ACCEPT_S, QUIET_S, SLACK_S, TEARDOWN_S, UNROUTING_BOUND_S
from paceline_core.fit import EngineSetup, Refusal, possible_tensor_parallel_sizes, refusals
from paceline_core.gpus import UnknownGpu
from paceline_core.latency import (
    CLIENT_ERROR_STATUS,
    ELAPSED_HEADER,
    LatencyTarget,
    Outcome,
    Targets,
    TargetsError,
    judge_status,
)
from paceline_core.layout import LAYOUT_ANNOTATION, Layout, LayoutError, LayoutOrder
from paceline_core.roofline import NoEstimate, estimate_table
from paceline_core.timing import StepTiming, TimingTable
from paceline_core.timing_tables import UnknownTable, load_table, shipped_tables
from paceline_core.uri import (
    BUNDLED_NAMES,
    BundledUri,
    ClaimUri,
    HubUri,
    ModelUri,
    S3Uri,
    UriError,
    parse_uri,
)

__all__ = [
    "BUNDLED_FACTS",
    "BUNDLED_NAMES",
    "CLIENT_ERROR_STATUS",
    "ELAPSED_HEADER",
    "GATE_ACCEPT_S",
    "LAYOUT_ANNOTATION",
    "NOT_QUANTIZED",
    "QUIET_S",
    "SLACK_S",
    "TEARDOWN_S",
    "UNROUTING_BOUND_S",
    "BundledUri",
    "Canary",
    "CanaryError",
    "CheckpointFacts",
    "ClaimUri",
    "EngineSetup",
    "FileFormat",
    "HubUri",
    "LatencyTarget",
    "Layout",
    "LayoutError",
    "LayoutOrder",
    "ModelUri",
    "NoEstimate",
    "Outcome",
    "QuantizationFacts",
    "Reference",
    "Refusal",
    "S3Uri",
    "Speed",
    "StepTiming",
    "Targets",
    "TargetsError",
    "TimingTable",
    "UnknownGpu",
    "UnknownTable",
    "UriError",
    "WeightsName",
    "estimate_table",
    "file_format_of",
    "judge_status",
    "load_table",
    "parse_uri",
    "possible_tensor_parallel_sizes",
    "refusals",
    "shipped_tables",
    "weights_bytes_of_header",
    "weights_bytes_of_index",
]
