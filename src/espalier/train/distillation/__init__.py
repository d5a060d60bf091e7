"""Learning from another model's distribution over next tokens."""
