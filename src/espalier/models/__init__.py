"""Models that ship in the wheel, each a folder that transformers loads."""
