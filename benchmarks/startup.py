"""What `espalier --help` costs, beside Python itself and beside the libraries it must not load.

Prints one row a command (the median of several runs, CPU seconds of the whole process) and, last, JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys

RUNS = 7
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "espalier --help": [sys.executable, "-m", "espalier.cli.main", "--help"],
    "espalier models --help": [sys.executable, "-m", "espalier.cli.main", "models", "--help"],
    "import pydantic": [sys.executable, "-c", "import pydantic"],
    "import sqlalchemy": [sys.executable, "-c", "import sqlalchemy"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def measure_cpu_s(command: list[str]) -> float:
    """User and system time of one run of `command`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    medians = {}
    for name, command in COMMANDS.items():
        measure_cpu_s(command)  # the first run reads the files from disk
        medians[name] = statistics.median(measure_cpu_s(command) for _ in range(RUNS))
        print(f"{name:<24} {medians[name]:6.3f} CPU-s")
    print(json.dumps({"cpu_s": {name: round(value, 3) for name, value in medians.items()}}))


if __name__ == "__main__":
    main()
