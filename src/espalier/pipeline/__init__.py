"""Runs any step and knows none: a typed graph, keys that can be trusted, and an explanation for every hit and miss."""
