"""Worker processes end when they should: at an error, at Ctrl-C, and when the process they serve is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from espalier.data.flow.workers import open_spread

HOURS_S = 7200.0
SERVED = f"""
import time
from espalier.data.flow.workers import open_spread

if __name__ == "__main__":
    with open_spread(2) as spread:
        for _ in spread(time.sleep, [0.0, {HOURS_S}, {HOURS_S}]):
            print("ready", flush=True)
"""


def start(folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A process that waits for workers that sleep for hours; those workers."""
    script = folder / "served.py"
    script.write_text(SERVED)
    served = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
    assert served.stdout is not None and served.stdout.readline() == "ready\n"
    return served, psutil.Process(served.pid).children(recursive=True)


def wait_for_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that live on after a long grace; they are ended here."""
    _, alive = psutil.wait_procs(processes, timeout=30)
    for process in alive:
        process.kill()
    return alive


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_process_it_serves(tmp_path: Path, number: signal.Signals) -> None:
    served, workers = start(tmp_path)
    assert len(workers) >= 3
    os.kill(served.pid, number)
    alive = wait_for_end([psutil.Process(served.pid), *workers])
    served.communicate()
    assert not alive


def test_an_error_does_not_wait_for_tasks_whose_results_nobody_wants() -> None:
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError), open_spread(2) as spread:
        for _ in spread(time.sleep, [0.0, HOURS_S]):
            raise ZeroDivisionError
    assert time.monotonic() - started < HOURS_S / 10


ON_RAY = """
from espalier.core.errors import InvalidInput
from espalier.core.refs import Ref
from espalier.data.flow.workers import open_spread

if __name__ == "__main__":
    with open_spread(1, "ray") as spread:
        try:
            for ref in spread(Ref.parse, ["dataset:a@v1", "dataset:a@@", "dataset:a@v2"]):
                print(ref.name, flush=True)
        except InvalidInput as error:
            print("invalid:", bool(error.hint))
"""


@pytest.mark.slow
def test_an_error_on_ray_is_the_same_error_here_and_ray_prints_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    script = tmp_path / "on_ray.py"
    script.write_text(ON_RAY)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines() == ["a", "invalid: True"]
    assert "ERROR" not in done.stderr and "Traceback" not in done.stderr
