"""What a program that we start may know of our environment: all it may need to run, and nothing that is a secret.

Which variables a GPU's libraries, a compiler or an engine read, nobody can list; what a secret is called, is much the
same everywhere. So what looks like one is left out, by its name, or as an address with a password in it, and with it
every setting of ours. Whoever wants a program to have a variable all the same starts it by a command that sets it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_SECRET = re.compile(
    r"KEY|SECRET|(?<!MAX_)(?<!NUM_)TOKEN(?!IZ)|PASS(W|PHRASE|FILE|$)|_PWD$|CREDENTIAL|AUTH|COOKIE|DATABASE"
    r"|CONNECTION_?STRING|DSN$|_UR[LI]$",
    re.IGNORECASE,
)
_OURS = ("ESPALIER_", "AWS_")
_HARMLESS = "ESPALIER_KERNELS"  # whether native kernels are used
_LOCKED = re.compile(r"://[^/\s@]*:[^/\s@]+@")  # scheme://user:password@host


def share_environment(ours: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of `ours` (this process's own) that a child is given."""
    return {name: value for name, value in (os.environ if ours is None else ours).items() if _is_shared(name, value)}


def _is_shared(name: str, value: str) -> bool:
    locked = name.startswith(_OURS) or _SECRET.search(name) or _LOCKED.search(value)
    return name == _HARMLESS or not locked
