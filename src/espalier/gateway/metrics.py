"""Counters of the gateway in Prometheus' text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).

Labels come from our own closed sets (versions served, status codes, finish reasons), never from what a client sent,
so a client cannot grow the number of series. One event loop writes; no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from espalier.gateway.ticket import Ticket

_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_HELP = {
    "requests_total": "counter", "tokens_total": "counter", "cost_nusd_total": "counter", "answers_total": "counter",
    "in_flight": "gauge", "latency_seconds": "histogram", "first_token_seconds": "histogram",
}  # fmt: skip


class Metrics:
    """What the gateway has done since it started."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._counts: dict[tuple[str, str], int] = defaultdict(int)  # (metric, labels)
        self._histograms: dict[tuple[str, str], _Histogram] = defaultdict(_Histogram)

    def count_request(self, route: str, status: int) -> None:
        self._counts["requests_total", _labels(route=route, status=str(status))] += 1

    def count_answer(self, ticket: Ticket) -> None:
        """A settled ticket's tokens, cost and times."""
        model, used = ticket.target.model, ticket.used()
        self._counts["answers_total", _labels(model=model, finish=ticket.finish_reason or "cancelled")] += 1
        self._counts["tokens_total", _labels(model=model, direction="prompt")] += used.prompt_tokens
        self._counts["tokens_total", _labels(model=model, direction="completion")] += used.completion_tokens
        self._counts["cost_nusd_total", _labels(model=model)] += ticket.cost_nusd
        self._histograms["latency_seconds", _labels(model=model)].add(ticket.latency_ms / 1000)
        if ticket.first_ms:
            self._histograms["first_token_seconds", _labels(model=model)].add(ticket.first_ms / 1000)

    def render(self) -> str:
        """Every metric, by name."""
        return "".join(line + "\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        for metric, kind in sorted(_HELP.items()):
            yield f"# TYPE espalier_{metric} {kind}"
            if metric == "in_flight":
                yield f"espalier_in_flight {self.in_flight}"
            for (name, labels), count in sorted(self._counts.items()):
                if name == metric:
                    yield f"espalier_{metric}{{{labels}}} {count}"
            for (name, labels), histogram in sorted(self._histograms.items(), key=lambda item: item[0]):
                if name == metric:
                    yield from histogram.lines(f"espalier_{metric}", labels)


class _Histogram:
    def __init__(self) -> None:
        self._buckets = [0] * (len(_BOUNDS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._buckets[bisect_left(_BOUNDS_S, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), self._buckets, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self._sum}"
        yield f"{name}_count{{{labels}}} {total}"


def _labels(**values: str) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in values.items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
