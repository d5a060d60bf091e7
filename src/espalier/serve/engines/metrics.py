"""Gauges out of a Prometheus text exposition (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

import math

from espalier.serve.engines.line import Reply


def read_gauges(reply: Reply) -> dict[str, float]:
    """By name, the sum over all label sets; empty where the server has no metrics."""
    found: dict[str, float] = {}
    if reply.status != 200:
        return found
    for line in reply.content.decode("utf-8", "replace").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        name, _, rest = line.partition("{")
        if rest:
            value = rest.rpartition("}")[2].split()
        else:
            name, *value = line.split()
        try:
            number = float(value[0])
        except (IndexError, ValueError):
            continue
        if math.isfinite(number):
            found[name] = found.get(name, 0.0) + number
    return found
