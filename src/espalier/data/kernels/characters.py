"""UTF-8 inside a kernel: how wide a character is and which one. Knows nothing of what characters mean."""

from __future__ import annotations

from espalier.data.kernels.buffers import Bytes
from espalier.data.kernels.compiling import kernel


@kernel
def width_of(data: Bytes, i: int, end: int) -> int:
    """Bytes of the character that begins at i, at most up to `end`; 1 for a byte that begins none."""
    byte = data[i]
    if byte < 0xC2:
        width = 1
    elif byte < 0xE0:
        width = 2
    elif byte < 0xF0:
        width = 3
    elif byte < 0xF5:
        width = 4
    else:
        width = 1
    return min(width, end - i)


@kernel
def code_point_at(data: Bytes, i: int, width: int) -> int:
    """The code point of the `width` bytes at i; -1 when they are not one character of UTF-8."""
    byte = int(data[i])
    if byte < 0x80:
        return byte
    if byte < 0xC2:
        return -1
    if byte < 0xE0:
        expected, code = 2, byte & 0x1F
    elif byte < 0xF0:
        expected, code = 3, byte & 0x0F
    elif byte < 0xF5:
        expected, code = 4, byte & 0x07
    else:
        return -1
    if width != expected:
        return -1
    for k in range(1, width):
        follower = int(data[i + k])
        if follower & 0xC0 != 0x80:
            return -1
        code = (code << 6) | (follower & 0x3F)
    return code
