"""The lines of `e2e/results` as the tables that the README shows. Unknown is `-`, never zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from e2e.results import Line, lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """One row for each scenario of a file, from its last line."""

    title: str
    file: str
    columns: Mapping[str, str]
    """Heading and the figure below it."""

    names: Mapping[str, str] = field(default_factory=dict)
    """What a scenario is called, by the end of its name; else it is its name."""

    def rows(self, folder: Path) -> list[list[str]]:
        last = {str(line["scenario"]): line for line in lines(self.file, folder=folder)}
        return [
            [
                self._name(scenario),
                *(_text(line.get(figure)) for figure in self.columns.values()),
                _seen((line,)),
            ]
            for scenario, line in last.items()
        ]

    @property
    def headings(self) -> Sequence[str]:
        return ("", *self.columns, "seen")

    def _name(self, scenario: str) -> str:
        for end, name in self.names.items():
            if scenario.endswith(end):
                return name
        return scenario.removeprefix("test_").replace("_", " ")


_CHANGES = {
    "[scale-1-3-1]": "scale 1 → 3 → 1",
    "[tp-1-3-1]": "TP 1 → 3 → 1",
    "[new-image]": "a new image",
    "[delete-one-of-two-pods]": "one of two pods deleted",
    "[roll-the-router]": "the router rolled",
}
_COUNTS = {"requests": "requests", "failed": "failed"}
_KILLED = {**_COUNTS, "operator kills": "operator_kills"}

LATEST: Final = (
    Latest(title="A change under load, engines emulated", file="lossless", columns=_KILLED, names=_CHANGES),
    Latest(
        title="A change under load, stock vLLM on a CPU", file="real_engine", columns=_KILLED, names=_CHANGES
    ),
    Latest(
        title="Faults under load, engines emulated",
        file="faults",
        columns={
            **_COUNTS,
            "of these later": "failed_later",
            "until all was well again, s": "recovered_s",
        },
        names={
            "a_killed_engine_takes_its_own_streams_with_it_and_no_later_one": "an engine pod killed",
            "an_engine_process_that_ends_takes_its_own_streams_with_it_and_no_later_one": "an engine's process ends",
            "an_engine_that_hangs_is_restarted_and_holds_few_requests": "an engine hangs, its server answers",
            "a_killed_router_takes_its_own_streams_with_it_and_no_later_one": "a router pod killed",
            "[an-image-that-is-not-there]": "a new image that cannot be pulled",
            "[an-engine-that-dies-on-load]": "new engines that die on load",
            "[an-engine-that-answers-otherwise]": "new engines that answer otherwise",
            "[an-engine-that-is-five-times-slower]": "new engines five times slower",
            "gpus_that_somebody_takes_in_the_middle_of_a_change_end_it_and_lose_nothing": "GPUs taken in the middle of a change",
            "somebodys_autoscaler_is_named_and_loses_nothing": "an HPA put on the engines",
        },
    ),
    Latest(
        title="A queue that overflows, engines emulated",
        file="overflow",
        columns={"requests": "requests", "refused": "refused", "recovered after, s": "recovery_s"},
    ),
    Latest(
        title="To zero and back, engines emulated",
        file="scale_to_zero",
        columns={
            **_COUNTS,
            "refused": "refused",
            "first token at zero, s": "first_token_at_zero_s",
            "longest wait, s": "longest_wait_s",
        },
    ),
    Latest(
        title="The closed loop, engines emulated unless named",
        file="auto",
        columns={
            **_KILLED,
            "most replicas": "most_replicas",
            "transitions": "transitions",
            "looks with a Pending pod": "pending_looks",
        },
    ),
    Latest(
        title="What Auto relies on breaks, engines emulated",
        file="auto_faults",
        columns={
            **_COUNTS,
            "said after, s": "told_s",
            "a rise of the load followed after, s": "followed_s",
            "all well after, s": "recovered_s",
            "attained before, %": "attained_before_percent",
            "meanwhile": "attained_meanwhile_percent",
            "after": "attained_after_percent",
        },
        names={
            "ten_minutes_without_prometheus_hold_the_shape_and_a_load_that_rises_is_followed": "Prometheus away for 10 min",
            "an_engine_five_times_slower_than_its_peers_is_replaced": "an engine becomes five times slower",
        },
    ),
    Latest(
        title="What the operator stands on breaks while its service changes, engines emulated",
        file="operator_faults",
        columns={
            **_COUNTS,
            "the operator's calls": "calls",
            "refused": "calls_refused",
            "carried out, the answer lost": "calls_lost",
            "seconds of each change": "seconds_of_each_change",
            "longest first token, s": "longest_first_token_s",
            "warnings": "warnings",
        },
        names={
            "[healthy]": "healthy, through the same proxy",
            "[conflicts]": "three of ten writes answered 409",
            "[too-many-requests]": "three of ten calls answered 429",
            "[internal-errors-and-lost-answers]": "three of ten calls answered 500",
            "[slow]": "each call 0.7 s late",
            "changes_during_which_the_clock_jumps_end_as_without": "the clock jumps an hour ahead, and back",
        },
    ),
    Latest(
        title="A full node changes its tensor-parallel size in place, engines emulated",
        file="in_place",
        columns={**_KILLED, "changes": "transitions", "longest first token, s": "longest_first_token_s"},
        names={
            "[undisturbed]": "by hand",
            "[operator-killed]": "by hand, the operator killed",
            "auto_divides_the_only_pod_of_a_full_node_when_the_load_outgrows_it": "by Auto",
        },
    ),
    Latest(
        title="A full node gets another image by recreate, engines emulated",
        file="recreate",
        columns={
            **_KILLED,
            "fewest pods that served": "fewest_serving",
            "a change took, s": "took_s",
            "longest first token, s": "longest_first_token_s",
        },
        names={
            "[two-pods]": "two pods",
            "[two-pods-operator-killed]": "two pods, the operator killed",
            "[the-only-pod]": "the only pod",
            "a_rival_that_takes_what_an_old_pod_left_ends_the_change_and_loses_nothing": "two pods and a rival",
        },
    ),
    Latest(
        title="One of three nodes lost, engines emulated",
        file="node",
        columns={**_COUNTS, "of these later": "failed_later", "until all was well again, s": "recovered_s"},
    ),
    Latest(
        title="Forty minutes as predicted (simulated), Llama 3.1 70B on H200s, emulated",
        file="replay",
        columns={
            "traffic": "source",
            **_COUNTS,
            "attained, %": "attainment_percent",
            "predicted, %": "predicted_attainment_percent",
            "GPUs": "gpus",
            "predicted": "predicted_gpus",
            "sizes": "sizes",
            "predicted sizes": "predicted_sizes",
            "step lag p99, ms": "step_lag_p99_ms",
            "void": "void",
        },
    ),
)


class Transitions:
    """The campaign of transitions at random moments: one row for each kind."""

    title = "Transitions at random moments under load, engines emulated"
    headings = (
        "transition",
        "times",
        "requests",
        "failed",
        "streams on the pods that move, least",
        "of all requests longer than twice the drain",
        "p99 TTFT at rest, ms",
        "meanwhile, ms",
        "attainment, %",
        "seen",
    )

    def rows(self, folder: Path) -> list[list[str]]:
        return [self._row(kind, of) for kind, of in _by_kind(lines("transitions", folder=folder)).items()]

    @staticmethod
    def _row(kind: str, of: Sequence[Line]) -> list[str]:
        requests = sum(line["requests"] for line in of)
        cells = (
            len(of),
            requests,
            sum(line["failed"] for line in of),
            min(line["streams_moving"] for line in of),
            sum(line["long"] for line in of),
            p99_ms(of, "ttft_ms_at_rest"),
            p99_ms(of, "ttft_ms_meanwhile"),
            round(100 * sum(line["attained"] for line in of) / requests, 2) if requests else None,
        )
        return [kind, *map(_text, cells), _seen(of)]


class Kills:
    """The campaign of kills of the operator: one row for each step of each kind of transition, and one for all."""

    title = "The operator killed (SIGKILL) at each step of a transition under load, engines emulated"
    headings = (
        "transition",
        "step",
        "kills",
        "transitions",
        "requests",
        "failed",
        "another end",
        "second transitions",
        "seen",
    )

    def rows(self, folder: Path) -> list[list[str]]:
        killed = [line for line in lines("kills", folder=folder) if line["kills"]]
        rows = []
        for kind, of in _by_kind(killed).items():
            kills = Counter(step for line in of for step in line["kills"])
            rows += [
                [kind, step, *self._cells(count, [line for line in of if step in line["kills"]])]
                for step, count in kills.items()
            ]
        total = sum(len(line["kills"]) for line in killed)
        return [*rows, ["all", "", *self._cells(total, killed)]] if killed else []

    @staticmethod
    def _cells(kills: int, of: Sequence[Line]) -> list[str]:
        cells = (
            kills,
            len(of),
            sum(line["requests"] for line in of),
            sum(line["failed"] for line in of),
            sum(not line["same_end"] for line in of),
            sum(line["second_transitions"] for line in of),
        )
        return [*map(_text, cells), _seen(of)]


def p99_ms(of: Iterable[Line], figure: str) -> int | None:
    """Of the counts by milliseconds in that figure of all lines; None where nothing was counted."""
    counts: Counter[int] = Counter()
    for line in of:
        counts.update({int(ms): count for ms, count in line[figure].items()})
    seen, total = 0, counts.total()
    for ms in sorted(counts):
        seen += counts[ms]
        if seen > 0.99 * total or seen == total:
            return ms
    return None


def markdown(folder: Path) -> str:
    """Every table that has a row."""
    tables = ((table, table.rows(folder)) for table in (*LATEST, Transitions(), Kills()))
    return "\n\n".join(
        "\n".join((f"### {table.title}", "", *_table(table.headings, rows))) for table, rows in tables if rows
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]


def _by_kind(of: Iterable[Line]) -> dict[str, list[Line]]:
    kinds: dict[str, list[Line]] = {}
    for line in of:
        kinds.setdefault(line["kind"], []).append(line)
    return kinds


def _seen(of: Sequence[Line]) -> str:
    """At which commits, and on which day last."""
    commits = dict.fromkeys(str(line["commit"]) for line in of)
    return f"{', '.join(commits)}; {max(str(line['at']) for line in of)[:10]}"


def _text(value: object) -> str:
    return "-" if value is None else str(value)
