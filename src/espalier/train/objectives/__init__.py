"""Pure functions of per-token log-probabilities."""
