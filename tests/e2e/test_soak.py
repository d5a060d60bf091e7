"""The soak in its shortest form: a served house under every kind of load answers right and keeps nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
_SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


def test_a_house_under_mixed_load_answers_for_the_right_adapter_and_keeps_nothing_of_a_request() -> None:
    command = [sys.executable, str(_SOAK), "--minutes", "0.2", "--adapters", "12", "--clients", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    checks = dict(result["checks"])
    del checks["memory"]  # means something after minutes only: `benchmarks/soak.py --minutes 10`
    assert result["examples"] == []
    assert checks == {"answers": True, "nothing_left": True, "reservations": True}
    assert result["asked"]["cancel"] > 0 and result["asked"]["batch"] > 0
