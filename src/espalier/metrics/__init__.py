"""Metrics, found through the entry point group `espalier.metrics`: each is a factory `name(**options) -> Metric`."""
