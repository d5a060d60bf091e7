"""How a kernel is compiled: once for each machine, kept on disk, without the interpreter's lock.

Importing this imports numba (0.4 s), so modules of kernels are imported where they are used and no earlier. Knows no
kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def kernel(function: Kernel) -> Kernel:
    """Compile at the first call. Its machine code is kept beside the module, or in NUMBA_CACHE_DIR.

    Where neither that nor a cache folder of the user's can be written, it is compiled anew in each process.
    """
    try:
        compiled: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        compiled = numba.njit(nogil=True)(function)
    made: Kernel = compiled
    return made
