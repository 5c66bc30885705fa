"""What was seen of a run: each request judged, and the fleet as it was looked at. Kept as files that people can open.

    requests.csv    one request a line
    looks.csv       one look at the fleet a line
    run.json        what was played

Written by the scenario, read to draw the run again.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from e2e.load import Record
from e2e.replay.prediction import Held, mean_gpus, sequence_of
from paceline.simulator.core.traffic import Traffic
from paceline_core.latency import Outcome, Targets, judge_status

_REQUESTS = ("arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "tpot_s", "outcome", "failure")
_LOOKS = ("at_s", "tensor_parallel_size", "replicas", "gpus", "ready")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request that was played. Unknown is None."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    ttft_s: float | None
    tpot_s: float | None
    outcome: Outcome
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The fleet at one moment."""

    at_s: float
    tensor_parallel_size: int
    """Asked for, as `replicas` is."""
    replicas: int
    gpus: int
    """Held by pods, those that start or drain too."""
    ready: Mapping[int, int]
    """Replicas that serve, by their size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeChange:
    at_s: float
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    source: str
    duration_s: float
    answers: Sequence[Answered]
    looks: Sequence[Look]

    @property
    def failed(self) -> int:
        """Requests without a whole answer, whoever's fault it was."""
        return sum(bool(one.failure) for one in self.answers)

    @property
    def attainment(self) -> float | None:
        """Of the requests that count (`docs/architecture.md`)."""
        counted = [one.outcome for one in self.answers if one.outcome.counts]
        return sum(one is Outcome.GOOD for one in counted) / len(counted) if counted else None

    @property
    def held(self) -> tuple[Held, ...]:
        """What a look saw holds until the next one."""
        return tuple(
            Held(at_s=one.at_s if index else 0.0, gpus=one.gpus) for index, one in enumerate(self.looks)
        )

    @property
    def gpus(self) -> float:
        """Held, in the mean over time."""
        return mean_gpus(self.held, until_s=self.duration_s)

    @property
    def tensor_parallel_sizes(self) -> tuple[int, ...]:
        return sequence_of(one.tensor_parallel_size for one in self.looks)

    @property
    def size_changes(self) -> tuple[SizeChange, ...]:
        return tuple(
            SizeChange(at_s=after.at_s, before=before.tensor_parallel_size, after=after.tensor_parallel_size)
            for before, after in pairwise(self.looks)
            if before.tensor_parallel_size != after.tensor_parallel_size
        )

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        body = {"source": self.source, "duration_s": self.duration_s}
        (folder / "run.json").write_text(json.dumps(body) + "\n", encoding="utf-8")
        _write(
            folder / "requests.csv",
            _REQUESTS,
            (
                (one.arrival_s, one.prompt_tokens, one.output_tokens, one.ttft_s, one.tpot_s, one.outcome.value, one.failure)
                for one in self.answers
            ),
        )  # fmt: skip
        _write(
            folder / "looks.csv",
            _LOOKS,
            (
                (one.at_s, one.tensor_parallel_size, one.replicas, one.gpus, json.dumps(dict(one.ready)))
                for one in self.looks
            ),
        )

    @classmethod
    def read(cls, folder: Path) -> Played:
        body = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return cls(
            source=body["source"],
            duration_s=body["duration_s"],
            answers=[
                Answered(
                    arrival_s=float(row["arrival_s"]),
                    prompt_tokens=int(row["prompt_tokens"]),
                    output_tokens=int(row["output_tokens"]),
                    ttft_s=_known(row["ttft_s"]),
                    tpot_s=_known(row["tpot_s"]),
                    outcome=Outcome(row["outcome"]),
                    failure=row["failure"],
                )
                for row in _rows(folder / "requests.csv")
            ],
            looks=[
                Look(
                    at_s=float(row["at_s"]),
                    tensor_parallel_size=int(row["tensor_parallel_size"]),
                    replicas=int(row["replicas"]),
                    gpus=int(row["gpus"]),
                    ready={int(size): count for size, count in json.loads(row["ready"]).items()},
                )
                for row in _rows(folder / "looks.csv")
            ],
        )


def judged(records: Sequence[Record], traffic: Traffic, targets: Targets) -> list[Answered]:
    """Every request of the traffic; one that was never sent has failed. The clock starts when a request is sent, which is
    before the gate has it."""
    by_index = {record.index: record for record in records}
    answers = []
    for index in range(len(traffic)):
        record = by_index.get(index)
        prompt_tokens, output_tokens = int(traffic.prompt_tokens[index]), int(traffic.output_tokens[index])
        failure = _failure(record, output_tokens=output_tokens)
        answers.append(
            Answered(
                arrival_s=float(traffic.arrival_s[index]),
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                ttft_s=record.ttft_s if record is not None else None,
                tpot_s=record.tpot_s if record is not None else None,
                outcome=_outcome(record, prompt_tokens=prompt_tokens, targets=targets, failure=failure),
                failure=failure,
            )
        )
    return answers


def _outcome(record: Record | None, *, prompt_tokens: int, targets: Targets, failure: str) -> Outcome:
    if record is None or record.ttft_s is None or failure:
        refused = judge_status(record.status) if record is not None and record.status is not None else None
        return refused or Outcome.FAILED
    return targets.classify(prompt_tokens).judge_streamed(
        prompt_tokens=prompt_tokens,
        output_tokens=record.max_tokens,
        ttft_s=record.ttft_s,
        tpot_s=record.tpot_s,
    )


def _failure(record: Record | None, *, output_tokens: int) -> str:
    if record is None:
        return "never sent"
    if record.failure is not None:
        return record.failure
    if record.ttft_s is None:
        return "no token"
    if record.output_tokens != output_tokens:
        return f"{record.output_tokens} tokens instead of {output_tokens}"
    return ""


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _known(written: str) -> float | None:
    return float(written) if written else None
