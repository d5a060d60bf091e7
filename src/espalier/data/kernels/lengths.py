"""How long texts are, in words: what stands between white space, as `str.split` sees it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.data.kernels.buffers import Bytes, Offsets
from espalier.data.kernels.characters import code_point_at, width_of
from espalier.data.kernels.compiling import kernel


@kernel
def count_words(data: Bytes, offsets: Offsets, out: npt.NDArray[np.int64]) -> None:
    """Words of each row. data (B,), offsets (n + 1,), out (n,)."""
    for row in range(len(offsets) - 1):
        end = offsets[row + 1]
        i = offsets[row]
        words = 0
        inside = False
        while i < end:
            byte = data[i]
            if byte < 0x80:
                blank = byte == 32 or (9 <= byte <= 13) or (28 <= byte <= 31)
                i += 1
            else:
                width = width_of(data, i, end)
                code = code_point_at(data, i, width)
                blank = (
                    code == 0x85
                    or code == 0xA0
                    or code == 0x1680
                    or 0x2000 <= code <= 0x200A
                    or code == 0x2028
                    or code == 0x2029
                    or code == 0x202F
                    or code == 0x205F
                    or code == 0x3000
                )
                i += width
            if not blank and not inside:
                words += 1
            inside = not blank
        out[row] = words
