"""A child of ours: started, waited for, ended with all it started, and found again after our own sudden death."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from espalier.core.errors import MissingExtra, Unavailable
from espalier.serve.engines.process import ServerProcess

# Ignores being asked to end, and has a child of its own.
_STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def _make(folder: Path, program: str) -> ServerProcess:
    return ServerProcess([sys.executable, "-c", program], dict(os.environ), folder)


def _wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(6000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to hold")


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _find_grandchild(process: ServerProcess) -> int:
    _wait_for(lambda: process.log.read_text().endswith("\n"))  # a number without its end may be half of one
    return int(process.log.read_text())


def test_what_will_not_end_is_ended_and_what_it_started_too(tmp_path: Path) -> None:
    process = _make(tmp_path, _STUBBORN)
    process.start()
    grandchild = _find_grandchild(process)
    process.stop(0.1)
    assert not process.running
    _wait_for(lambda: _is_gone(grandchild))
    assert not (tmp_path / "server.pid").exists()


def test_what_an_earlier_life_left_behind_is_ended_before_the_next_start(tmp_path: Path) -> None:
    earlier = _make(tmp_path, _STUBBORN)
    earlier.start()
    grandchild = _find_grandchild(earlier)
    left = earlier._child
    assert left is not None
    later = _make(tmp_path, "import time; time.sleep(600)")
    later.start()
    try:
        left.wait(60)
        _wait_for(lambda: _is_gone(grandchild))
        assert later.running
    finally:
        later.stop(0.0)


def test_a_process_that_took_over_the_number_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "server.pid").write_text(f'{{"pid": {os.getpid()}, "born": 1.0}}')
    process = _make(tmp_path, "import time; time.sleep(600)")
    process.start()  # the number noted is this very process's: to be mistaken about it would end the test
    assert process.running
    process.stop(0.0)


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": "x", "born": 1}', '{"pid": 999999999, "born": 1}'])
def test_a_note_that_says_nothing_hinders_no_start(tmp_path: Path, note: str) -> None:
    (tmp_path / "server.pid").write_text(note)
    process = _make(tmp_path, "import time; time.sleep(600)")
    process.start()
    assert process.running
    process.stop(0.0)


def test_one_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    process = _make(tmp_path, "import time; time.sleep(600)")
    process.start()
    with pytest.raises(Unavailable, match="not ready"):
        process.wait(lambda: False, 0.3)
    assert not process.running


def test_a_program_that_is_not_there_is_a_missing_extra(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match="no-such-program"):
        ServerProcess(["no-such-program"], dict(os.environ), tmp_path).start()


def test_its_log_is_read_by_its_owner_only(tmp_path: Path) -> None:
    process = _make(tmp_path, "")
    process.start()
    process.stop(5.0)
    assert process.log.stat().st_mode & 0o777 == 0o600


def test_one_that_is_stopped_before_it_is_noted_down_is_gone_without_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, look = _make(tmp_path, "import time; time.sleep(600)"), psutil.Process

    def stop_first(pid: int) -> psutil.Process:
        process.stop(0.0)
        return look(pid)

    with monkeypatch.context() as patch:
        patch.setattr(psutil, "Process", stop_first)
        process.start()
    assert not process.running
    assert not (tmp_path / "server.pid").exists()
