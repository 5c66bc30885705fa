"""Verify which layout a start is in: the order, what was served last, and what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline_core import Layout, LayoutError, LayoutOrder
from paceline_runtime.launch.pod_layout import PodLayout

BASE = Layout(8)


def start(folder: Path) -> PodLayout:
    return PodLayout(file=folder / "order", memory=folder / "layout.json", base=BASE)


def order(folder: Path, text: str) -> None:
    (folder / "order").write_text(text)


def test_without_an_order_it_is_that_of_the_command_line(tmp_path: Path) -> None:
    assert start(tmp_path).current == BASE


def test_the_first_start_takes_the_order_and_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    order(tmp_path, "tp=4,dp=2,change=1")
    one = start(tmp_path)
    assert one.current == Layout(4, 2)
    assert not one.failed("out of memory")
    assert start(tmp_path).current == Layout(4, 2)


def test_a_layout_that_failed_leads_back_to_the_last_that_served(tmp_path: Path) -> None:
    start(tmp_path).opened()
    order(tmp_path, "tp=4,dp=2,change=1")
    assert start(tmp_path).failed("out of memory")
    again = start(tmp_path)
    assert again.current == BASE
    assert again.refused is not None
    assert (again.refused.order, again.refused.message) == ("tp=4,dp=2,change=1", "out of memory")


def test_a_start_that_never_came_to_its_end_counts_as_failed(tmp_path: Path) -> None:
    start(tmp_path).opened()
    order(tmp_path, "tp=4,dp=2,change=1")
    start(tmp_path)
    again = start(tmp_path)
    assert again.current == BASE
    assert again.refused is not None


def test_a_crash_of_a_layout_that_served_is_no_reason_to_leave_it(tmp_path: Path) -> None:
    start(tmp_path).opened()
    order(tmp_path, "tp=4,dp=2,change=1")
    start(tmp_path).opened()
    assert start(tmp_path).current == Layout(4, 2)
    assert start(tmp_path).current == Layout(4, 2)


def test_a_later_change_tries_the_same_layout_again(tmp_path: Path) -> None:
    start(tmp_path).opened()
    order(tmp_path, "tp=4,dp=2,change=1")
    start(tmp_path).failed("out of memory")
    order(tmp_path, "tp=4,dp=2,change=2")
    again = start(tmp_path)
    assert (again.current, again.refused) == (Layout(4, 2), None)


@pytest.mark.parametrize("text", ["tp=4", "tp=0,dp=8,change=1", "tp=4,dp=4,change=1", "rubbish"])
def test_an_order_that_cannot_be_is_not_followed(tmp_path: Path, text: str) -> None:
    order(tmp_path, text)
    assert start(tmp_path).current == BASE


@pytest.mark.parametrize("text", ["tp=4,dp=2,change=7", "tp=4,dp=2,change=7,drain=40"])
def test_an_order_is_read_as_it_was_written(text: str) -> None:
    assert str(LayoutOrder.parse(text)) == text


def test_a_layout_is_not_an_order() -> None:
    assert Layout.parse("tp=4,dp=2") == Layout(4, 2)
    with pytest.raises(LayoutError, match="write tp=4,dp=2,change=7"):
        LayoutOrder.parse("tp=4,dp=2")


@pytest.mark.parametrize(("size", "layout"), [(8, Layout(8)), (2, Layout(2, 4)), (3, None), (16, None)])
def test_gpus_divide_evenly_or_not_at_all(size: int, layout: Layout | None) -> None:
    assert Layout.dividing(8, tensor_parallel_size=size) == layout
