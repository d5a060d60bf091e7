"""Compiled kernels for what is not a matrix product in training on a CPU; see docs/decisions/compiled-kernels.md."""
