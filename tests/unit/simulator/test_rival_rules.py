"""Each rival's rule against numbers worked out by hand from its documented formula and defaults."""

from __future__ import annotations

import math

import pytest

from paceline.simulator.policies import hpa_rule, llmd_rule, wva_saturation_rule
from paceline.simulator.policies.aibrix_rule import ApaRule, ApaSettings
from paceline.simulator.policies.dynamo_load_rule import EngineLoad, LoadSettings
from paceline.simulator.policies.dynamo_load_rule import step as dynamo_load_step
from paceline.simulator.policies.dynamo_predictor import ConstantPredictor, KalmanPredictor
from paceline.simulator.policies.dynamo_profile import EngineProfile
from paceline.simulator.policies.dynamo_sla_rule import Corrections, Interval, needs
from paceline.simulator.policies.hpa_rule import Behavior, Brakes
from paceline.simulator.policies.knative_rule import KnativeRule, KnativeSettings
from paceline.simulator.policies.llmd_rule import LlmdSettings
from paceline.simulator.policies.ray_rule import OngoingRule, OngoingSettings, TtftRule, TtftSettings
from paceline.simulator.policies.window import Window
from paceline.simulator.policies.wva_queueing_rule import IterationModel, Queue, carried_rate
from paceline.simulator.policies.wva_saturation_rule import SaturationSettings
from paceline.simulator.policies.wva_token_rule import ReplicaLoad, TokenRule, TokenSettings
from paceline_core.timing import StepTiming

PLAIN = StepTiming(
    knot_tokens=(0, 10_000),
    knot_s=(0.01, 0.11),
    prefill_attention_s=0.0,
    decode_attention_s=0.0,
    kv_cache_tokens=100_000,
    overhead_s=0.0,
)
"""f(N) = 10 ms + 10 µs · N, and nothing else."""

PROFILE = EngineProfile(timing=PLAIN, max_batched_tokens=8192, max_sequences=256)


class TestHorizontalPodAutoscaler:
    @pytest.mark.parametrize(
        ("total", "replicas", "wanted"),
        [(30, 2, 6), (11, 2, 2), (11.1, 2, 3), (9, 2, 2), (8.9, 2, 2), (4, 2, 1), (0, 2, 0)],
    )
    def test_average_value_divides_the_total_by_the_target(
        self, total: float, replicas: int, wanted: int
    ) -> None:
        assert hpa_rule.average_value(total, target=5, replicas=replicas) == wanted

    def test_value_multiplies_the_ready_pods_by_the_ratio(self) -> None:
        assert hpa_rule.value(1.5, target=1.0, ready=3, replicas=4) == 5
        assert hpa_rule.value(1.05, target=1.0, ready=3, replicas=4) == 4

    @pytest.mark.parametrize(
        ("values", "unready", "missing", "wanted"),
        [
            pytest.param([0.9, 0.9], 0, 0, 4, id="1.8 times two pods"),
            pytest.param([0.9, 0.9], 2, 0, 4, id="unready pods count 0: 0.45 turns the direction, hold"),
            pytest.param([1.0, 1.0], 1, 0, 4, id="mean 0.667, ratio 1.33 of three"),
            pytest.param([0.1, 0.1], 0, 1, 2, id="missing counts as on target: 0.467 of three"),
            pytest.param([], 2, 0, None, id="nobody reports"),
        ],
    )
    def test_a_pods_metric_pads_what_it_cannot_see(
        self, values: list[float], unready: int, missing: int, wanted: int | None
    ) -> None:
        replicas = len(values) + unready + missing
        found = hpa_rule.pods_metric(values, target=0.5, replicas=replicas, unready=unready, missing=missing)
        assert found == wanted

    def test_up_is_at_most_double_or_four_pods_in_a_period(self) -> None:
        brakes = Brakes(Behavior(), min_replicas=1, max_replicas=50)
        assert brakes.settle(20, now_s=0, replicas=2) == 6
        assert brakes.settle(20, now_s=5, replicas=6) == 6
        assert brakes.settle(20, now_s=15, replicas=6) == 12
        assert brakes.settle(20, now_s=30, replicas=12) == 20

    def test_down_waits_for_the_highest_recommendation_of_five_minutes(self) -> None:
        brakes = Brakes(Behavior(), min_replicas=1, max_replicas=50)
        assert brakes.settle(6, now_s=0, replicas=6) == 6
        for now_s in range(15, 300, 15):
            assert brakes.settle(2, now_s=now_s, replicas=6) == 6
        assert brakes.settle(2, now_s=300, replicas=6) == 2

    def test_down_one_pod_in_two_minutes(self) -> None:
        brakes = Brakes(
            Behavior(down_percent=None, down_pods=1, down_period_s=120, down_stabilization_s=0),
            min_replicas=1,
            max_replicas=9,
        )
        assert brakes.settle(1, now_s=0, replicas=5) == 4
        assert brakes.settle(1, now_s=60, replicas=4) == 4
        assert brakes.settle(1, now_s=120, replicas=4) == 3


class TestKnative:
    def test_it_panics_when_the_short_window_asks_for_twice_what_is_ready(self) -> None:
        rule = KnativeRule(KnativeSettings())
        assert rule.desired(now_s=0, stable=50, panic=69, ready=1) == 1
        assert rule.desired(now_s=2, stable=80, panic=210, ready=1) == 3
        assert rule.panicking

    def test_in_panic_it_never_goes_down_and_leaves_after_a_stable_window(self) -> None:
        rule = KnativeRule(KnativeSettings())
        assert rule.desired(now_s=0, stable=350, panic=350, ready=1) == 5
        assert rule.desired(now_s=30, stable=70, panic=70, ready=5) == 5
        assert rule.desired(now_s=60, stable=70, panic=70, ready=5) == 2
        assert not rule.panicking


class TestAibrix:
    @pytest.mark.parametrize(
        ("average", "replicas", "wanted"),
        [(0.9, 3, 6), (0.6, 3, 4), (0.55, 3, 3), (0.46, 3, 3), (0.1, 8, 4), (0.4, 8, 7), (5.0, 3, 6)],
    )
    def test_ratio_with_tolerance_and_at_most_double_or_half(
        self, average: float, replicas: int, wanted: int
    ) -> None:
        assert ApaRule(ApaSettings()).recommended(average, replicas=replicas) == wanted

    def test_down_waits_for_the_cooldown(self) -> None:
        rule = ApaRule(ApaSettings())
        assert rule.desired(0.5, now_s=0, replicas=4) == 4
        assert rule.desired(0.2, now_s=290, replicas=4) == 4
        assert rule.desired(0.2, now_s=300, replicas=4) == 2


class TestRay:
    def test_a_wish_must_last_for_the_whole_delay(self) -> None:
        rule = OngoingRule(OngoingSettings())
        assert rule.desired(9, now_s=0, replicas=2) == 2
        assert rule.desired(9, now_s=29, replicas=2) == 2
        assert rule.desired(9, now_s=30, replicas=2) == 5
        assert rule.desired(2, now_s=31, replicas=5) == 5
        assert rule.desired(2, now_s=630, replicas=5) == 5
        assert rule.desired(2, now_s=631, replicas=5) == 1

    def test_a_break_starts_the_delay_again(self) -> None:
        rule = OngoingRule(OngoingSettings())
        assert rule.desired(9, now_s=0, replicas=2) == 2
        assert rule.desired(4, now_s=20, replicas=2) == 2
        assert rule.desired(9, now_s=40, replicas=2) == 2
        assert rule.desired(9, now_s=70, replicas=2) == 5

    @pytest.mark.parametrize(
        ("ttft", "ongoing", "wish"),
        [(2.1, 9.0, 1), (1.9, 0.9, -1), (1.9, 1.0, 0), (None, 0.0, 0), (1.0, None, 0)],
    )
    def test_time_to_first_token_moves_one_replica(
        self, ttft: float | None, ongoing: float | None, wish: int
    ) -> None:
        assert TtftRule(TtftSettings()).wish(ttft, ongoing_per_replica=ongoing) == wish


class TestLlmd:
    def test_the_score_is_the_worse_share_of_its_target_up_to_two(self) -> None:
        score = llmd_rule.score(ttft_p90_s=1.5, tpot_p90_s=0.08, ttft_target_s=3.0, tpot_target_s=0.1)
        assert score == pytest.approx(0.8)
        assert llmd_rule.score(ttft_p90_s=90, tpot_p90_s=0.0, ttft_target_s=3.0, tpot_target_s=0.1) == 2.0

    @pytest.mark.parametrize(
        ("score", "ready", "wanted"),
        [
            pytest.param(0.8, 4, 6, id="4 · 0.8 / 0.55 = 5.8"),
            pytest.param(0.8, 2, 4, id="two of four still start: 0.4 is not above 0.55"),
            pytest.param(0.5, 4, 4, id="between the thresholds"),
            pytest.param(0.39, 4, 3, id="below 0.40"),
        ],
    )
    def test_up_above_055_down_below_040(self, score: float, ready: int, wanted: int) -> None:
        assert llmd_rule.recommended(score, LlmdSettings(), ready=ready, replicas=4) == wanted


class TestWvaSaturation:
    @pytest.mark.parametrize(
        ("loads", "step"),
        [
            pytest.param([(0.75, 0)], 1, id="spare KV 0.05"),
            pytest.param([(0.5, 2.5)], 1, id="spare queue 2.5"),
            pytest.param([(0.9, 0), (0.5, 6)], 1, id="all saturated"),
            pytest.param([(0.6, 1), (0.5, 1)], 0, id="one alone would hold 1.1"),
            pytest.param([(0.3, 0.5), (0.3, 0.5)], -1, id="one alone: 0.6 and 1"),
            pytest.param([(0.3, 1.1), (0.3, 1.1)], 0, id="one alone: queue 2.2, spare 2.8"),
            pytest.param([(0.1, 0)], 0, id="never below one"),
            pytest.param([], 0, id="nobody reports"),
        ],
    )
    def test_spare_capacity_of_the_replicas_that_are_not_saturated(
        self, loads: list[tuple[float, float]], step: int
    ) -> None:
        assert wva_saturation_rule.step(loads, SaturationSettings()) == step


class TestWvaTokens:
    def test_capacity_is_the_smaller_of_kv_and_batch(self) -> None:
        rule = TokenRule(TokenSettings())
        loads = [ReplicaLoad(tokens_in_use=0, queue=0, kv_cache_tokens=100_000)]
        assert rule.capacity_tokens(loads, prompt_tokens=1000, output_tokens=200) == 80_000
        # N = 8192 · 20 / 1020 = 160.6 sequences of 1,010 tokens
        small = rule.capacity_tokens(
            [ReplicaLoad(tokens_in_use=0, queue=0, kv_cache_tokens=1_000_000)],
            prompt_tokens=1000,
            output_tokens=20,
        )
        assert small == pytest.approx(8192 * 20 / 1020 * 1010)

    def test_a_full_queue_teaches_what_a_replica_holds(self) -> None:
        rule = TokenRule(TokenSettings())
        full = [ReplicaLoad(tokens_in_use=50_000, queue=5, kv_cache_tokens=100_000)]
        assert rule.capacity_tokens(full, prompt_tokens=1000, output_tokens=200) == 50_000

    @pytest.mark.parametrize(
        ("in_use", "queue", "pending", "wanted"),
        [
            pytest.param(75_000, 2, 0, 3, id="154k / 0.85 − 160k = 21k of 80k"),
            pytest.param(75_000, 2, 1, 3, id="the one that starts is enough"),
            pytest.param(20_000, 0, 0, 1, id="160k − 40k / 0.70 = 103k: one of 80k"),
            pytest.param(20_000, 0, 1, 3, id="nothing goes while one starts"),
            pytest.param(50_000, 0, 0, 2, id="between"),
        ],
    )
    def test_demand_over_085_less_supply(
        self, in_use: float, queue: float, pending: int, wanted: int
    ) -> None:
        loads = [ReplicaLoad(tokens_in_use=in_use, queue=queue, kv_cache_tokens=100_000)] * 2
        found = TokenRule(TokenSettings()).desired(
            loads, prompt_tokens=1000, output_tokens=200, pending=pending
        )
        assert found == wanted


class TestWvaQueueing:
    MODEL = IterationModel(alpha_s=0.1, beta_s=1e-15, gamma_s=0.0)

    def test_a_batch_of_one_is_an_m_m_1_k_queue(self) -> None:
        """Service 0.1 + 9 · 0.1 = 1 s, K = 11: the textbook's mean number in the system."""
        rate, places = 0.5, 11
        found = Queue(self.MODEL, prompt_tokens=0, output_tokens=9, max_batch=1).means(rate)
        in_system = rate / (1 - rate) - (places + 1) * rate ** (places + 1) / (1 - rate ** (places + 1))
        empty = (1 - rate) / (1 - rate ** (places + 1))
        full = empty * rate**places
        waiting_s = (in_system - (1 - empty)) / (rate * (1 - full))
        assert found.ttft_s == pytest.approx(waiting_s + 0.1)
        assert found.itl_s == pytest.approx(0.1)

    def test_the_carried_rate_is_where_the_mean_meets_the_target(self) -> None:
        rate = carried_rate(
            self.MODEL, prompt_tokens=0, output_tokens=9, max_batch=1, ttft_target_s=1.1, itl_target_s=0.2
        )
        at = Queue(self.MODEL, prompt_tokens=0, output_tokens=9, max_batch=1).means(rate)
        assert at.ttft_s == pytest.approx(1.1, rel=1e-6)

    def test_a_target_below_the_floor_carries_nothing(self) -> None:
        rate = carried_rate(
            self.MODEL, prompt_tokens=0, output_tokens=9, max_batch=4, ttft_target_s=9, itl_target_s=0.09
        )
        assert rate == 0.0

    def test_the_tuner_finds_the_line_that_the_engine_follows(self) -> None:
        model = IterationModel.of(PLAIN, prompt_tokens=100, output_tokens=50, max_batch=256)
        assert model.alpha_s == pytest.approx(0.01, rel=1e-6)
        assert model.beta_s == pytest.approx(1e-5, rel=1e-6)


class TestDynamo:
    def test_the_profile_reads_the_engine(self) -> None:
        assert PROFILE.prefill_s(1000) == pytest.approx(0.02)
        assert PROFILE.prefill_s(10_000) == pytest.approx(0.01 + 0.08192 + 0.01 + 0.01808)
        # 200 sequences take exactly 12 ms
        assert PROFILE.best_decode_tokens_per_s(itl_target_s=0.0120001, context=100) == pytest.approx(
            200 / 0.012
        )

    def test_classic_needs_are_tokens_over_throughput(self) -> None:
        """10 requests/s of 1,000 + 200 tokens: 10,000 / 50,000 prefill, 2,000 / 16,667 decode."""
        found = needs(
            requests=1800,
            isl=1000,
            osl=100,
            profile=PROFILE,
            corrections=Corrections(),
            itl_target_s=0.0100951,
            interval_s=180,
        )
        # context 1,050: 95 sequences fit the cache; 9 take 10.09 ms
        assert found.prefill == pytest.approx(0.2)
        assert found.decode == pytest.approx(1000 / (9 / 0.01009))
        assert found.aggregated == 2

    def test_a_prefill_faster_than_the_profile_needs_less_and_a_slower_one_not_more(self) -> None:
        seen = Interval(requests=180, isl=1000, osl=100, ttft_s=0.01, itl_s=None, request_s=None)
        fast = Corrections.of(seen, PROFILE, replicas=1, interval_s=180)
        assert fast.prefill == pytest.approx(0.5)
        slow = Corrections(prefill=3.0)
        kwargs = {"requests": 1800, "isl": 1000, "osl": 100, "itl_target_s": 0.05, "interval_s": 180}
        assert needs(profile=PROFILE, corrections=fast, **kwargs).prefill == pytest.approx(0.1)
        assert needs(profile=PROFILE, corrections=slow, **kwargs).prefill == pytest.approx(0.2)

    def test_the_decode_correction_compares_with_the_profile_at_the_same_concurrency(self) -> None:
        """900 requests on 3 replicas, 60 s each, in 180 s: 100 at a time, 11 ms in the profile."""
        seen = Interval(requests=900, isl=1000, osl=100, ttft_s=0.02, itl_s=0.022, request_s=60)
        assert Corrections.of(seen, PROFILE, replicas=3, interval_s=180).decode == pytest.approx(2.0)

    def test_aggregated_engine_rate_keeps_both_targets(self) -> None:
        """A batch of b: 10 ms + 10 µs · (b + 10·b) must stay below 21 ms: b = 100; osl 100, so 100/(100·21 ms)."""
        rate = PROFILE.requests_per_s(isl=1000, osl=100, ttft_target_s=9.0, itl_target_s=0.0199001)
        # but 95 fit the KV cache, and 90 take 19.9 ms
        assert rate == pytest.approx(90 / (100 * 0.0199))

    @pytest.mark.parametrize(
        ("loads", "step"),
        [
            pytest.param([(10, 60), (10, 60)], 1, id="61 prompts before: 0.7 s at all"),
            pytest.param([(10, 60), (10, 0)], 0, id="one is in time"),
            pytest.param([(10, 0), (10, 0)], -1, id="one could carry both"),
            pytest.param([(80, 0), (80, 0)], 0, id="160 sequences would be 27.6 ms of 0.8 · 30"),
            pytest.param([(1, 0)], 0, id="never below one"),
        ],
    )
    def test_load_loop_up_if_all_are_late_down_if_the_rest_could_carry_it(
        self, loads: list[tuple[float, float]], step: int
    ) -> None:
        engines = [EngineLoad(running=r, waiting=w, kv_tokens=r * 100) for r, w in loads]
        found = dynamo_load_step(
            engines,
            PROFILE,
            LoadSettings(),
            isl=1000,
            osl=100,
            ttft_target_s=0.5,
            itl_target_s=0.030,
        )
        assert found == step

    def test_predictors_follow_a_line(self) -> None:
        constant, kalman = ConstantPredictor(), KalmanPredictor()
        assert constant.next() is None
        assert kalman.next() is None
        for value in range(0, 300, 10):
            constant.add(value)
            kalman.add(value)
        assert constant.next() == 290
        found = kalman.next()
        assert found is not None
        assert math.isclose(found, 300, rel_tol=0.03)


def test_a_window_forgets_what_is_as_old_as_its_span() -> None:
    window = Window(60)
    window.add(1.0, now_s=0)
    window.add(3.0, now_s=30)
    assert window.mean() == 2.0
    window.forget(60)
    assert window.mean() == 3.0
    window.forget(100)
    assert window.mean() is None
