"""Batches of documents through steps: on one process or many, in bounded memory, with a checkpoint after each step."""
