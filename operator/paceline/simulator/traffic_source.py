"""The traffic that a person asked for, on the command line of `simulate` or in a suite: one source, a window, a scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paceline.simulator.core.generators import GENERATORS, UnknownSetting, conversation, generate
from paceline.simulator.core.traffic import Pairs, Traffic
from paceline.simulator.core.traffic_files import read_rate, read_requests
from paceline.simulator.written_values import WrittenWrong, parse_scenario

ROUNDING_S = 1e-6
"""What a window may reach beyond the end: hours are no whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSource:
    """One of `requests`, `rate` and `synthetic`. A wrong value is named as the option of `simulate`."""

    requests: Path | None = None
    rate: Path | None = None
    lengths: Path | None = None
    """Whose lengths are drawn, with `rate` or `synthetic`; None: those of a made-up conversation."""
    synthetic: str | None = None
    rate_noise: float = 0.0
    from_hours: float = 0.0
    hours: float | None = None
    """None: to the end."""
    scale: float = 1.0
    """Of the rate; time is not stretched."""

    def __post_init__(self) -> None:
        given = [name for name in ("requests", "rate", "synthetic") if getattr(self, name) is not None]
        if len(given) != 1:
            raise WrittenWrong(
                f"--{given[1]}" if given else "--requests",
                f"--{given[0]} is given already: write one of them"
                if given
                else "no traffic: write one of --requests, --rate and --synthetic",
            )
        if self.lengths is not None and self.requests is not None:
            raise WrittenWrong(
                "--lengths", "--requests has its own lengths: write it with --rate or --synthetic"
            )
        if self.rate_noise and self.rate is None:
            raise WrittenWrong("--rate-noise", "it is added to a rate: write it with --rate")
        if not 0 < self.scale < 1000:
            raise WrittenWrong("--scale", f"{self.scale}: write a number above 0, such as 0.5")
        if not self.from_hours >= 0:
            raise WrittenWrong("--from-hours", f"{self.from_hours:g}: write at least 0")
        if self.hours is not None and not self.hours > 0:
            raise WrittenWrong("--hours", f"{self.hours:g}: write a number above 0, such as 12")

    def read(self, *, seed: int) -> Traffic:
        if self.rate is not None:
            rate = read_rate(self.rate)
            window = self._window(rate.end_s)
            if self.rate_noise:
                rate = rate.noisy(self.rate_noise, seed=seed)
            return rate.between(*window).arrivals(
                self._pairs() or conversation(), seed=seed, scale=self.scale
            )
        if self.requests is not None:
            traffic = read_requests(self.requests)
            traffic = traffic.between(*self._window(traffic.end_s))
            if self.scale > 1:
                return traffic.multiplied(self.scale, seed=seed)
            return traffic.thinned(self.scale, seed=seed) if self.scale < 1 else traffic
        name, settings = parse_scenario(self.synthetic or "", option="--synthetic", known=tuple(GENERATORS))
        try:
            traffic = generate(name, settings, seed=seed, lengths=self._pairs(), scale=self.scale)
        except UnknownSetting as error:
            raise WrittenWrong("--synthetic", str(error)) from error
        return traffic.between(*self._window(traffic.end_s))

    def _pairs(self) -> Pairs | None:
        if self.lengths is None:
            return None
        read = read_requests(self.lengths)
        return Pairs(prompt_tokens=read.prompt_tokens, output_tokens=read.output_tokens)

    def _window(self, end_s: float) -> tuple[float, float]:
        from_s = self.from_hours * 3600
        if from_s >= end_s:
            raise WrittenWrong(
                "--from-hours", f"{self.from_hours:g}: the traffic is {_hours(end_s)} hours long: write less"
            )
        if self.hours is None:
            return from_s, end_s
        until_s = from_s + self.hours * 3600
        if until_s > end_s + ROUNDING_S:
            raise WrittenWrong(
                "--hours",
                f"{self.hours:g}: from hour {self.from_hours:g} on the traffic lasts {_hours(end_s - from_s)} hours: "
                "write at most that",
            )
        return from_s, min(until_s, end_s)


def _hours(span_s: float) -> str:
    return f"{span_s / 3600:.3f}".rstrip("0").rstrip(".")
