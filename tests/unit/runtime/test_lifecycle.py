"""The phases of a pod, in any order of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paceline_runtime.vllm_plugin.lifecycle import Lifecycle, Phase

ORDER = [Phase.LOADING, Phase.SERVING, Phase.UNROUTING, Phase.DRAINING, Phase.DRAINED]
EVENTS = st.lists(st.sampled_from(["open", "leave", "close", "give_up", "arrive", "depart"]), max_size=60)


@given(EVENTS)
def test_a_phase_only_goes_forward_and_drained_means_empty_or_given_up(events: list[str]) -> None:
    lifecycle = Lifecycle(clock=lambda: 0.0)
    given_up = False
    for event in events:
        before, held = lifecycle.phase, lifecycle.in_flight
        if event == "arrive" and not lifecycle.accepts:
            continue  # the middleware refuses these
        if event == "depart" and not held:
            continue
        given_up = given_up or (event == "give_up" and before is Phase.DRAINING)
        getattr(lifecycle, event)()
        assert ORDER.index(lifecycle.phase) >= ORDER.index(before)
        assert lifecycle.ready == (lifecycle.phase is Phase.SERVING)
        if lifecycle.phase is Phase.DRAINED:
            assert lifecycle.in_flight == 0 or given_up


@given(EVENTS)
def test_a_pod_that_leaves_is_never_ready_again(events: list[str]) -> None:
    lifecycle = Lifecycle(clock=lambda: 0.0)
    lifecycle.leave()
    for event in events:
        if event == "depart" and not lifecycle.in_flight:
            continue
        getattr(lifecycle, event)()
        assert not lifecycle.ready


def test_an_unrouting_pod_accepts_and_a_draining_one_does_not() -> None:
    lifecycle = Lifecycle(clock=lambda: 0.0)
    lifecycle.open()
    lifecycle.arrive()
    lifecycle.leave()
    assert lifecycle.accepts
    lifecycle.close()
    assert not lifecycle.accepts
    assert lifecycle.phase is Phase.DRAINING
    lifecycle.depart()
    assert lifecycle.phase is Phase.DRAINED


def test_the_age_of_the_last_arrival_is_unknown_before_the_first() -> None:
    now_s = 5.0
    lifecycle = Lifecycle(clock=lambda: now_s)
    assert lifecycle.last_arrival_age_s() is None
    lifecycle.arrive()
    now_s = 7.5
    assert lifecycle.last_arrival_age_s() == 2.5
