"""Examples -> weights: one loop, one pure objective per method."""
