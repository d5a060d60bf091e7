"""Duplicates at scale: sketches of texts, candidates by their bands, verification by true Jaccard, components."""
