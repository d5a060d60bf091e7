"""How a kernel is compiled: once for each machine, kept on disk, without the interpreter's lock.

Handing an array to another kernel counts a reference, an atomic addition at both ends; so kernels called for every word
or byte take addresses (`array.ctypes.data`) and read them by `load1`, `load4` and `load8`, which check no bounds.

Importing this imports numba (0.4 s), so modules of kernels are imported where they are used and no earlier. Knows no
kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numba
from numba.extending import intrinsic

Kernel = TypeVar("Kernel", bound=Callable[..., object])
Whole: TypeAlias = Any  # an integer, as wide as the compiler finds it must be


def kernel(function: Kernel) -> Kernel:
    """Compile at the first call. Its machine code is kept beside the module, or in NUMBA_CACHE_DIR.

    Where neither that nor a cache folder of the user's can be written, it is compiled anew in each process.
    """
    try:
        compiled: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        compiled = numba.njit(nogil=True)(function)
    _stamp_folder(compiled, Path(function.__code__.co_filename).parent)
    made: Kernel = compiled
    return made


def _stamp_folder(compiled: Any, folder: Path) -> None:
    """Have kept machine code count as old when any module beside the kernel changed.

    numba looks at the kernel's own file alone, though what it calls in other files is part of its code. It has no
    public way to say so; should the private one go, a changed callee is noticed only with its caller, as usual.
    """
    file: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = (file._source_stamp, _read_stamp(folder))


@cache
def _read_stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """(name, time in ns, bytes) of each module."""
    found = ((path, path.stat()) for path in sorted(folder.glob("*.py")))
    return tuple((path.name, status.st_mtime_ns, status.st_size) for path, status in found)


def _make_load(signature: Any) -> Any:
    """A function of an address: the number that stands there, least byte first."""

    def load(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = context.get_value_type(signature.return_type).as_pointer()
            return builder.load(builder.inttoptr(arguments[0], pointer), align=1)

        return signature, generate

    return intrinsic(load)


load1 = _make_load(numba.uint8(numba.uint64))
load4 = _make_load(numba.int32(numba.uint64))
load8 = _make_load(numba.uint64(numba.uint64))
