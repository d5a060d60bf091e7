"""The demo from an empty folder, then once more: wall and CPU seconds, peak memory, and what each step took.

Prints a row a step and, last, JSON. Memory is the largest single process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ESPALIER = [sys.executable, "-m", "espalier.cli.main"]


def run_demo(folder: Path) -> dict[str, Any]:
    """One run: its own report, and what the operating system says of it."""
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*ESPALIER, "demo", "--folder", str(folder), "--json"], stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report | {
        "wall_s": round(time.monotonic() - started_s, 1),
        "cpu_s": round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, 1),
        "peak_mb": round(after.ru_maxrss / 1024),
    }


def list_steps(folder: Path, run: str) -> list[dict[str, Any]]:
    """Name, seconds and whether it was a hit, of every step of a run."""
    command = [*ESPALIER, "runs", "list", "--parent", run, "--limit", "50", "--json", "--workspace", str(folder)]
    steps = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return [
        {
            "name": step["name"],
            "wall_s": (step["ended_ms"] - step["started_ms"]) / 1000,
            "hit": bool(step["cache_hit_of"]),
        }
        for step in reversed(steps)
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "demo"
        first = run_demo(folder)
        steps = list_steps(folder, first["run"])
        for step in steps:
            print(f"{step['name']:<18} {step['wall_s']:7.1f} s")
        again = run_demo(folder)
        reused = list_steps(folder, again["run"])
    figures = {"first": first, "again": again, "hits": sum(step["hit"] for step in reused), "steps": len(reused)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
