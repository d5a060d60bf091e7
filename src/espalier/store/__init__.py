"""The substrate: bytes by content, immutable records, movable pointers, runs, jobs, audit and money. Knows no stage."""
