"""`espalier --help` is quick because it imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    *("torch", "transformers", "tokenizers", "peft", "numpy", "scipy", "pyarrow", "lxml", "jinja2"),
    *(
        "fastapi",
        "starlette",
        "uvicorn",
        "nicegui",
        "aiohttp",
        "sqlalchemy",
        "alembic",
        "openai",
        "boto3",
        "cryptography",
    ),
}
MAX_CPU_S = 0.5
YARDSTICK_S = 0.03  # what the loop below takes where MAX_CPU_S is asked for; a slower core is given more in proportion

_PROBE = """
import json, resource, sys, time
from espalier.cli.main import main
code = main({arguments!r})
used = resource.getrusage(resource.RUSAGE_SELF)
loaded = sorted({{name.split(".")[0] for name in sys.modules}})
began_s, words = time.process_time(), {{}}
for number in range(300_000):
    words[str(number % 5000)] = number
yardstick_s = time.process_time() - began_s
cpu_s = used.ru_utime + used.ru_stime
print("\\n" + json.dumps({{"code": code, "cpu_s": cpu_s, "yardstick_s": yardstick_s, "loaded": loaded}}))
"""


def probe(*arguments: str) -> dict[str, object]:
    script = _PROBE.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_help_imports_nothing_heavy() -> None:
    found = probe("--help")
    assert found["code"] == 0
    assert HEAVY & set(found["loaded"]) == set()  # type: ignore[call-overload]


def test_a_commands_help_imports_nothing_heavy() -> None:
    found = probe("train", "--help")
    assert found["code"] == 0
    assert HEAVY & set(found["loaded"]) == set()  # type: ignore[call-overload]


def measure_help_s() -> float:
    """CPU-seconds of `espalier --help`, as a core no slower than the yardstick's would take them."""
    found = probe("--help")
    cpu_s, yardstick_s = (float(found[name]) for name in ("cpu_s", "yardstick_s"))  # type: ignore[arg-type]
    return cpu_s / max(1.0, yardstick_s / YARDSTICK_S)


def test_help_takes_little_cpu_time() -> None:
    # CPU time, not the clock, and the best of a few: what the program itself costs, however busy the machine is. Where
    # two threads share a core, the same work takes half as long again.
    best, tries = MAX_CPU_S + 1, 0
    while best > MAX_CPU_S and tries < 10:
        best, tries = min(best, measure_help_s()), tries + 1
    sys.stdout.write(f"espalier --help: {best:.2f} CPU-seconds\n")
    assert best <= MAX_CPU_S
