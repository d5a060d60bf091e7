"""Learning from graded answers of one's own, through TRL."""
