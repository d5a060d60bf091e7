"""How this package's kernels are compiled: as the tokeniser's are. Importing this imports numba (0.4 s)."""

from espalier.tokens.compiling import kernel

__all__ = ["kernel"]
