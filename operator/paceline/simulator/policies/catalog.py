"""All rivals by name: as shipped, with the dials that tuning may turn.

Every ladder goes from fewer GPUs to more. The tensor-parallel size is a dial too (`tp`): nobody ships a default for
it, so "as shipped" is what a careful user finds in a load test of one replica (`Service.careful_size`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paceline.simulator.policies.aibrix import AibrixApa
from paceline.simulator.policies.aibrix_rule import ApaSettings
from paceline.simulator.policies.dynamo import DynamoLoad, DynamoSla
from paceline.simulator.policies.dynamo_load_rule import LoadSettings
from paceline.simulator.policies.dynamo_profile import EngineProfile
from paceline.simulator.policies.dynamo_sla_rule import ADJUSTMENT_INTERVAL_S
from paceline.simulator.policies.hpa import ExternalHpa, PodsHpa
from paceline.simulator.policies.knative import Knative
from paceline.simulator.policies.knative_rule import KnativeSettings
from paceline.simulator.policies.knob import Knob, Settings
from paceline.simulator.policies.llmd_rule import LlmdSettings
from paceline.simulator.policies.llmd_slo import LlmdSlo
from paceline.simulator.policies.ray_rule import OngoingSettings, TtftSettings
from paceline.simulator.policies.ray_serve import RayOngoing, RayTtft
from paceline.simulator.policies.sight import Rival
from paceline.simulator.policies.wva import WvaQueueing, WvaSaturation, WvaTokens
from paceline.simulator.policies.wva_saturation_rule import SaturationSettings
from paceline.simulator.policies.wva_token_rule import TokenSettings
from paceline_core.timing import StepTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The service that a rival is set up for: one tensor-parallel size, its targets and bounds."""

    timing: StepTiming
    """True step times: a rival that needs a profile gets a perfect one."""
    ttft_target_s: float
    tpot_target_s: float
    max_replicas: int
    max_sequences: int
    max_batched_tokens: int

    @property
    def profile(self) -> EngineProfile:
        return EngineProfile(
            timing=self.timing,
            max_batched_tokens=self.max_batched_tokens,
            max_sequences=self.max_sequences,
        )


Build = Callable[[Engine, Settings], Rival]


@dataclass(frozen=True, slots=True, kw_only=True)
class RivalEntry:
    knobs: tuple[Knob, ...]
    """The first one draws the frontier."""
    build: Build


def _down(default: float = 300.0) -> Knob:
    return Knob(name="down_stabilization_s", ladder=(0.0, 60.0, 120.0, 300.0, 600.0), default=default)


def _pods(gauge: str, knob: Knob) -> RivalEntry:
    def build(engine: Engine, settings: Settings) -> Rival:
        return PodsHpa(
            "kv" if gauge == "kv" else "queue" if gauge == "queue" else "concurrency",
            target=settings["target"],
            down_stabilization_s=settings["down_stabilization_s"],
            max_replicas=engine.max_replicas,
        )

    return RivalEntry(knobs=(knob, _down()), build=build)


def _keda(engine: Engine, settings: Settings) -> Rival:
    return ExternalHpa(
        "queue",
        target=settings["target"],
        down_stabilization_s=settings["down_stabilization_s"],
        max_replicas=engine.max_replicas,
    )


def _knative(engine: Engine, settings: Settings) -> Rival:
    del engine
    return Knative(
        KnativeSettings(
            target_concurrency=settings["target"],
            stable_window_s=settings["stable_window_s"],
            scale_down_delay_s=settings["scale_down_delay_s"],
        )
    )


def _aibrix(engine: Engine, settings: Settings) -> Rival:
    del engine
    return AibrixApa(
        ApaSettings(
            target=settings["target"],
            window_s=settings["window_s"],
            down_cooldown_s=settings["down_cooldown_s"],
        )
    )


def _ray_ongoing(engine: Engine, settings: Settings) -> Rival:
    del engine
    return RayOngoing(
        OngoingSettings(
            target_ongoing_requests=settings["target"],
            upscale_delay_s=settings["upscale_delay_s"],
            downscale_delay_s=settings["downscale_delay_s"],
        )
    )


def _ray_ttft(engine: Engine, settings: Settings) -> Rival:
    return RayTtft(
        TtftSettings(
            ttft_target_s=settings["target_share"] * engine.ttft_target_s,
            idle_ongoing=settings["idle_ongoing"],
            upscale_delay_s=settings["upscale_delay_s"],
            downscale_delay_s=settings["downscale_delay_s"],
        )
    )


def _llmd(engine: Engine, settings: Settings) -> Rival:
    return LlmdSlo(
        LlmdSettings(
            up_above=settings["up_above"],
            down_below=settings["up_above"] * settings["down_ratio"],
            look_back_s=settings["look_back_s"],
        ),
        ttft_target_s=engine.ttft_target_s,
        tpot_target_s=engine.tpot_target_s,
        max_replicas=engine.max_replicas,
    )


def _wva_v1(engine: Engine, settings: Settings) -> Rival:
    return WvaSaturation(
        SaturationSettings(
            kv_threshold=settings["kv_threshold"], queue_threshold=settings["queue_threshold"]
        ),
        down_stabilization_s=settings["down_stabilization_s"],
        max_replicas=engine.max_replicas,
    )


def _wva_v2(engine: Engine, settings: Settings) -> Rival:
    return WvaTokens(
        TokenSettings(
            kv_threshold=settings["kv_threshold"],
            up_threshold=settings["up_threshold"],
            down_boundary=settings["up_threshold"] * 0.70 / 0.85,
            max_batched_tokens=engine.max_batched_tokens,
            max_sequences=engine.max_sequences,
        ),
        kv_cache_tokens=engine.timing.kv_cache_tokens,
        down_stabilization_s=settings["down_stabilization_s"],
        max_replicas=engine.max_replicas,
    )


def _wva_queue(engine: Engine, settings: Settings) -> Rival:
    return WvaQueueing(
        engine.timing,
        max_batch=engine.max_sequences,
        ttft_target_s=engine.ttft_target_s,
        itl_target_s=engine.tpot_target_s,
        slack=settings["slack"],
        down_stabilization_s=settings["down_stabilization_s"],
        max_replicas=engine.max_replicas,
    )


def _dynamo_sla(engine: Engine, settings: Settings) -> Rival:
    return DynamoSla(
        engine.profile,
        itl_target_s=engine.tpot_target_s * settings["target_share"],
        interval_s=settings["interval_s"],
        corrects=bool(settings["corrects"]),
    )


def _dynamo_load(engine: Engine, settings: Settings) -> Rival:
    return DynamoLoad(
        engine.profile,
        LoadSettings(sensitivity=settings["sensitivity"]),
        ttft_target_s=engine.ttft_target_s * settings["target_share"],
        itl_target_s=engine.tpot_target_s * settings["target_share"],
    )


_KV = Knob(name="target", ladder=(0.9, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03), default=0.5)
_QUEUE = Knob(name="target", ladder=(20.0, 10.0, 5.0, 3.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05), default=5.0)
_IN_FLIGHT = (200.0, 140.0, 100.0, 70.0, 50.0, 35.0, 25.0, 17.0, 12.0, 8.0, 5.0, 3.0, 2.0)
_SHARE = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_UP = Knob(name="upscale_delay_s", ladder=(60.0, 30.0, 10.0, 0.0), default=30.0)
_DOWN = Knob(name="downscale_delay_s", ladder=(60.0, 120.0, 300.0, 600.0), default=600.0)

RIVALS: Mapping[str, RivalEntry] = {
    "hpa-queue": _pods("queue", _QUEUE),
    "hpa-kv": _pods("kv", _KV),
    "hpa-concurrency": _pods("concurrency", Knob(name="target", ladder=_IN_FLIGHT, default=100.0)),
    "keda": RivalEntry(knobs=(_QUEUE, _down()), build=_keda),
    "knative": RivalEntry(
        knobs=(
            Knob(name="target", ladder=_IN_FLIGHT, default=100.0),
            Knob(name="stable_window_s", ladder=(30.0, 60.0, 120.0, 300.0), default=60.0),
            Knob(name="scale_down_delay_s", ladder=(0.0, 60.0, 300.0, 600.0), default=0.0),
        ),
        build=_knative,
    ),
    "aibrix-apa": RivalEntry(
        knobs=(
            _KV,
            Knob(name="window_s", ladder=(30.0, 60.0, 180.0), default=180.0),
            Knob(name="down_cooldown_s", ladder=(60.0, 300.0, 600.0), default=300.0),
        ),
        build=_aibrix,
    ),
    "ray-ongoing": RivalEntry(
        knobs=(Knob(name="target", ladder=_IN_FLIGHT, default=2.0), _UP, _DOWN), build=_ray_ongoing
    ),
    "ray-ttft": RivalEntry(
        knobs=(
            Knob(name="target_share", ladder=(2.0, 1.5, *_SHARE, 0.1), default=1.0),
            Knob(name="idle_ongoing", ladder=(16.0, 8.0, 4.0, 2.0, 1.0), default=1.0),
            _UP,
            _DOWN,
        ),
        build=_ray_ttft,
    ),
    "llmd-slo": RivalEntry(
        knobs=(
            Knob(name="up_above", ladder=(1.0, 0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35), default=0.55),
            Knob(name="down_ratio", ladder=(0.95, 0.85, 0.73, 0.6), default=0.40 / 0.55),
            Knob(name="look_back_s", ladder=(120.0, 45.0, 15.0), default=45.0),
        ),
        build=_llmd,
    ),
    "wva-v1": RivalEntry(
        knobs=(
            Knob(
                name="kv_threshold", ladder=(0.95, 0.8, 0.6, 0.45, 0.35, 0.25, 0.2, 0.15, 0.12), default=0.8
            ),
            Knob(name="queue_threshold", ladder=(10.0, 5.0, 4.0, 3.2), default=5.0),
            _down(0.0),
        ),
        build=_wva_v1,
    ),
    "wva-v2": RivalEntry(
        knobs=(
            Knob(
                name="up_threshold",
                ladder=(0.95, 0.85, 0.7, 0.55, 0.4, 0.3, 0.22, 0.16, 0.12, 0.08),
                default=0.85,
            ),
            Knob(name="kv_threshold", ladder=(0.9, 0.8, 0.6), default=0.8),
            _down(0.0),
        ),
        build=_wva_v2,
    ),
    "wva-queue": RivalEntry(
        knobs=(Knob(name="slack", ladder=_SHARE, default=1.0), _down(0.0)), build=_wva_queue
    ),
    "dynamo-sla": RivalEntry(
        knobs=(
            Knob(name="target_share", ladder=_SHARE, default=1.0),
            Knob(name="interval_s", ladder=(180.0, 120.0, 60.0), default=ADJUSTMENT_INTERVAL_S),
            Knob(name="corrects", ladder=(0.0, 1.0), default=1.0),
        ),
        build=_dynamo_sla,
    ),
    "dynamo-load": RivalEntry(
        knobs=(
            Knob(name="target_share", ladder=_SHARE, default=1.0),
            Knob(name="sensitivity", ladder=(1.0, 0.9, 0.8, 0.7, 0.6, 0.5), default=0.8),
        ),
        build=_dynamo_load,
    ),
}
