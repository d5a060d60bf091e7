"""Takes from this process, for good, the right to change any file and to connect anywhere (Linux Landlock).

Source: https://docs.kernel.org/userspace-api/landlock.html. What the kernel does not know of is left out: the limits of
`child` hold without it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same number on every architecture
_VERSION = 1
_NO_NEW_PRIVS = 38
_PATH_BENEATH = 1
# Rights over files by the version that brought them: reading and running stay.
_WRITE_FILE = 1 << 1
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # remove, and make of every kind
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # versions 2 and 3
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1  # version 4


def give_up_changes() -> int:
    """Forbid it; the version of Landlock that does, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    version = int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION))
    if version <= 0:
        return 0
    files = _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    net = _BIND_TCP | _CONNECT_TCP if version >= 4 else 0
    told = struct.pack("<QQ", files, net)[: 16 if version >= 4 else 8]
    ruleset = int(libc.syscall(_CREATE, told, ctypes.c_size_t(len(told)), 0))
    if ruleset < 0:
        return 0
    try:
        _allow_null(libc, ruleset)
        if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_RESTRICT, ruleset, 0):
            return 0
    finally:
        os.close(ruleset)
    return version


def _allow_null(libc: ctypes.CDLL, ruleset: int) -> None:
    """A program started from here still opens /dev/null to write."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("<Qi", _WRITE_FILE, null), 0)
    finally:
        os.close(null)
