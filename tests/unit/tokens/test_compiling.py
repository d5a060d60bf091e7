"""Kernels are compiled once and kept, and never outlive a change of what they call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLEE = "from espalier.tokens.compiling import kernel\n\n@kernel\ndef callee(x):\n    return x + {}\n"
CALLER = (
    "from callee import callee\nfrom espalier.tokens.compiling import kernel\n\n"
    "@kernel\ndef caller(x):\n    return callee(x)\n"
)


def _run(folder: Path, **environment: str) -> str:
    code = "from caller import caller; print(caller(1), sum(caller.stats.cache_hits.values()))"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


@pytest.mark.slow
def test_a_changed_callee_in_another_file_is_compiled_anew(tmp_path: Path) -> None:
    (tmp_path / "callee.py").write_text(CALLEE.format(1))
    (tmp_path / "caller.py").write_text(CALLER)

    assert _run(tmp_path) == "2 0"
    assert _run(tmp_path) == "2 1"
    (tmp_path / "callee.py").write_text(CALLEE.format(10))
    assert _run(tmp_path) == "11 0"
