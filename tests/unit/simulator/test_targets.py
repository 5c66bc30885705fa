"""Verdicts from results written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paceline.simulator.benchmark.cell_results import CellResults, headroom_closed
from paceline.simulator.benchmark.suite import Cell
from paceline.simulator.benchmark.targets import Verdict, targets_of


def _point(gpu_hours: float, attainment: float = 0.995, **more: Any) -> dict[str, Any]:
    return {
        "settings": {},
        "gpu_hours": gpu_hours,
        "attainment": attainment,
        "reversals_within_10_min": 0,
        "tp_switches": 0,
        "blocks": [{"gpu_hours": gpu_hours / 4}] * 4,
        "settled": {"gpu_hours": gpu_hours, "attainment": attainment},
        "after_2_h": {"gpu_hours": gpu_hours, "attainment": attainment},
        **more,
    }


def _cell(
    *,
    ours: float,
    rival: float,
    bound: float = 10.0,
    fixed: float | None = None,
    single: float = 10.0,
    requests: int = 50_000,
    ours_attainment: float = 0.995,
    without_switch: tuple[dict[str, Any], ...] = (),
    **spec: Any,
) -> CellResults:
    point = _point(ours, ours_attainment)
    return CellResults(
        cell=Cell.model_validate(
            {"name": "c", "trained-on": "t", "traffic": {"synthetic": "steady"}, **spec}
        ),
        optimum={
            "objective": 0.99,
            "requests": requests,
            "bound_gpu_hours": bound,
            "bound_by_block": [bound / 4] * 4,
            "single_tp_bound_gpu_hours": single,
            "resolved": True,
            "hours": 24.0,
        },
        policies={
            "paceline": {"frontier": [point], "shipped": point, "without_switch": without_switch},
            "keda": {"frontier": [_point(rival), _point(rival / 2, 0.5)], "shipped": _point(rival)},
            "paceline-fixed-tp": {"frontier": [_point(fixed or ours)], "shipped": _point(fixed or ours)},
        },
    )


def _verdict(cells: list[CellResults], start: str, capped: list[dict[str, Any]] | None = None) -> Verdict:
    return next(one.verdict for one in targets_of(cells, capped or [], seed=0) if one.name.startswith(start))


def test_what_no_cell_asks_is_not_measured() -> None:
    assert {one.verdict for one in targets_of([], [], seed=0)} == {"not measured"}


@pytest.mark.parametrize(("ours", "verdict"), [(12.0, "met"), (14.0, "missed")])
def test_headroom_is_measured_from_the_rival_to_the_bound(ours: float, verdict: Verdict) -> None:
    assert headroom_closed(ours, 15.0, 10.0) == pytest.approx((15 - ours) / 5)
    assert _verdict([_cell(ours=ours, rival=15.0)], "1. headroom") == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(14.0, "met"), (14.5, "missed")])
def test_savings_count_in_cells_of_their_kind(ours: float, verdict: Verdict) -> None:
    cells = [_cell(ours=ours, rival=15.0, kind="azure")]
    assert _verdict(cells, "1. fewer GPU-hours than the best tuned rival, azure") == verdict
    assert _verdict(cells, "1. fewer GPU-hours than the best tuned rival, servegen") == "not measured"


@pytest.mark.parametrize(("ours", "verdict"), [(15.7, "met"), (15.8, "missed")])
def test_one_cell_that_is_worse_is_enough_to_miss(ours: float, verdict: Verdict) -> None:
    cells = [_cell(ours=11.0, rival=15.0), _cell(ours=ours, rival=15.0)]
    assert _verdict(cells, "1. no cell more than 5 % worse") == verdict


def test_a_cell_where_ours_does_not_hold_is_a_miss_and_not_left_out() -> None:
    cells = [_cell(ours=11.0, rival=15.0, ours_attainment=0.98)]
    assert _verdict(cells, "ours holds") == "missed"
    assert _verdict(cells, "1. headroom") == "missed"
    assert _verdict(cells, "1. no cell more than 5 % worse") == "missed"


def test_a_cell_with_too_few_requests_makes_no_claim() -> None:
    cells = [_cell(ours=9.0, rival=15.0, requests=9_000, kind="azure")]
    assert {one.verdict for one in targets_of(cells, [], seed=0)} == {"not measured"}


def test_a_point_that_misses_the_objective_is_no_figure_of_a_rival() -> None:
    best = _cell(ours=11.0, rival=15.0).best_rival()
    assert best is not None
    assert best[1]["gpu_hours"] == 15.0


def test_a_rival_that_holds_for_less_as_shipped_is_taken_as_shipped() -> None:
    cell = _cell(ours=11.0, rival=15.0)
    cell.policies["keda"]["shipped"] = _point(12.0)
    best = cell.best_rival()
    assert best is not None
    assert best[1]["gpu_hours"] == 12.0


@pytest.mark.parametrize(("ours", "verdict"), [(12.5, "met"), (13.9, "missed")])
def test_the_gap_between_one_size_and_several_is_recovered(ours: float, verdict: Verdict) -> None:
    cells = [_cell(ours=ours, rival=15.0, single=12.0, fixed=14.0)]
    assert _verdict(cells, "2a.") == verdict
    assert _verdict(cells, "2d.") == "not measured"


@pytest.mark.parametrize(("fixed", "verdict"), [(12.0, "met"), (11.5, "missed")])
def test_elsewhere_several_sizes_cost_nothing(fixed: float, verdict: Verdict) -> None:
    assert _verdict([_cell(ours=12.0, rival=15.0, fixed=fixed)], "2d.") == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(12.0, "met"), (12.1, "missed")])
def test_regret_is_over_the_bound(ours: float, verdict: Verdict) -> None:
    assert (
        _verdict([_cell(ours=ours, rival=15.0, kind="azure")], "3. GPU-hours over the bound, azure")
        == verdict
    )


@pytest.mark.parametrize(("attainment", "verdict"), [(0.98, "met"), (0.97, "missed")])
def test_a_fault_is_held_against_the_same_cell_without_it(attainment: float, verdict: Verdict) -> None:
    calm = _cell(ours=12.0, rival=15.0, name="calm")
    fault = _cell(ours=12.0, rival=15.0, name="fault", ours_attainment=attainment, without_fault="calm")
    assert _verdict([calm, fault], "5. points") == verdict


def test_a_fault_is_judged_once_the_first_pods_could_have_started() -> None:
    calm, fault = (_cell(ours=12.0, rival=15.0, name=name) for name in ("calm", "fault"))
    fault.policies["paceline"]["shipped"] = _point(12.0, 0.9, settled={"gpu_hours": 12.0, "attainment": 0.99})
    fault = replace(fault, cell=fault.cell.model_copy(update={"without_fault": "calm"}))
    assert _verdict([calm, fault], "5. points") == "met"


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        pytest.param((13.0, 0.995), "met", id="dearer-without-it"),
        pytest.param((11.0, 0.95), "met", id="misses-without-it"),
        pytest.param((11.9, 0.992), "missed", id="cheaper-without-it"),
    ],
)
def test_a_switch_pays_back_unless_the_run_is_better_without_it(
    other: tuple[float, float], verdict: Verdict
) -> None:
    without = {"at_s": 60.0, "old": 2, "new": 4, "gpu_hours": other[0], "attainment": other[1]}
    assert _verdict([_cell(ours=12.0, rival=15.0, without_switch=(without,))], "4. TP switches") == verdict
    assert _verdict([_cell(ours=12.0, rival=15.0)], "4. TP switches") == "not measured"


@pytest.mark.parametrize(
    ("ours", "attainment", "verdict"), [(12.6, 0.995, "met"), (12.7, 0.995, "missed"), (12.0, 0.98, "missed")]
)
def test_a_wrong_first_size_is_found_within_two_hours(
    ours: float, attainment: float, verdict: Verdict
) -> None:
    cell = _cell(ours=ours, ours_attainment=attainment, rival=15.0, fixed=12.0, first_tp=8)
    assert _verdict([cell], "2c.") == verdict
    assert _verdict([cell], "2d.") == "not measured"


def test_another_world_counts_in_no_comparison() -> None:
    cells = [_cell(ours=16.0, rival=15.0, kind="variation")]
    assert {one.verdict for one in targets_of(cells, [], seed=0)} == {"not measured"}


@pytest.mark.parametrize(("ours", "verdict"), [(0.75, "met"), (0.70, "missed")])
def test_under_a_cap_attainment_is_held_against_the_best_there_is(ours: float, verdict: Verdict) -> None:
    assert _verdict([], "6.", [{"cell": "c", "best": 0.8, "ours": ours}]) == verdict
