"""kill -9 of a whole pipeline, then the same command: finished steps are kept, the interrupted one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from espalier.pipeline.locks import FileLock
from espalier.store.store import Store, open_store
from espalier.store.workspace import Workspace

STEPS = """
import os
import time
from pathlib import Path

from espalier.core.step import step
from espalier.core.types import Spec


class Nothing(Spec):
    pass


@step("first", version=1, spec=Nothing, outputs={"out": "text"})
def first(context, spec):
    with Path("ran.log").open("a") as log:
        log.write("first\\n")
    (context.output("out") / "x.txt").write_text("first")


@step("long", version=1, spec=Nothing, inputs={"given": "text"}, outputs={"out": "text"})
def long(context, spec):
    state = context.scratch / "state"
    done = int(state.read_text()) if state.exists() else 0
    with Path("ran.log").open("a") as log:
        log.write(f"long from {done} in {os.getpid()}\\n")
    while done < 10:
        done += 1
        fresh = context.scratch / "state.tmp"
        fresh.write_text(str(done))
        fresh.replace(state)
        if done == 4 and not Path("go-on").exists():
            Path("reached").touch()
            time.sleep(600)
    (context.output("out") / "x.txt").write_text((context.input("given") / "x.txt").read_text() * done)
"""

PIPELINE = """
name: crashing
steps:
  first: {step: own_steps:first}
  long: {step: own_steps:long, inputs: {given: first.out}}
"""

COMMAND = """
import sys
from pathlib import Path
from espalier.core.errors import EspalierError
from espalier.pipeline.graph import load_pipeline
from espalier.pipeline.run import run_pipeline
from espalier.store.store import open_store
from espalier.store.workspace import init_workspace
folder = Path(sys.argv[1])
try:
    result = run_pipeline(load_pipeline(folder / "p.yaml"), open_store(init_workspace(folder)))
except EspalierError as error:
    sys.exit(f"{error.code}: {error}")
for node in result.nodes.values():
    print(node.name, node.status, node.outputs["out"])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own_steps.py").write_text(STEPS)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter when it goes between the opening and the reading
        return False


def statuses(folder: Path) -> dict[str, str]:
    store: Store = open_store(Workspace(folder))
    found = {run.name: run.status for run in reversed(store.runs.list())}
    store.close()
    return found


def test_after_kill_9_the_child_dies_finished_steps_are_kept_and_work_goes_on(folder: Path) -> None:
    victim = start(folder)
    await_true((folder / "reached").exists)
    child = int((folder / "ran.log").read_text().split()[-1])
    assert is_alive(child)
    os.kill(victim.pid, signal.SIGKILL)
    finish(victim)
    await_true(lambda: not is_alive(child))
    assert statuses(folder) == {"crashing": "running", "first": "succeeded", "long": "running"}

    (folder / "go-on").touch()
    code, out, err = finish(start(folder))
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines()] == [["first", "hit"], ["long", "ran"]]
    log = (folder / "ran.log").read_text().splitlines()
    assert [line.split(" in ")[0] for line in log] == ["first", "long from 0", "long from 4"]

    store = open_store(Workspace(folder))
    assert sorted(run.status for run in store.runs.list(step="pipeline")) == ["failed", "succeeded"]
    assert sorted(run.status for run in store.runs.list(step="long@1")) == ["failed", "succeeded"]
    undisturbed = "first" * 10
    digest = out.splitlines()[1].split()[2]
    assert (store.artifacts.materialise(digest) / "x.txt").read_text() == undisturbed
    store.close()


def test_ctrl_c_stops_the_child_marks_the_runs_and_says_how_to_go_on(folder: Path) -> None:
    victim = start(folder)
    await_true((folder / "reached").exists)
    child = int((folder / "ran.log").read_text().split()[-1])
    os.kill(victim.pid, signal.SIGINT)
    code, _, err = finish(victim)
    assert code != 0
    assert "interrupted" in err
    assert "finished steps are kept" in err
    assert not is_alive(child)
    assert statuses(folder) == {"crashing": "cancelled", "first": "succeeded", "long": "cancelled"}
    (folder / "go-on").touch()
    assert finish(start(folder))[0] == 0
    assert (folder / "ran.log").read_text().splitlines()[-1].startswith("long from 4")


def test_a_lock_is_free_as_soon_as_its_holder_is_killed(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from espalier.pipeline.locks import FileLock
print(FileLock(Path({str(tmp_path / "lock")!r})).try_acquire(), flush=True)
time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    lock = FileLock(tmp_path / "lock")
    assert not lock.try_acquire()
    holder.kill()
    holder.communicate()
    assert lock.try_acquire()
    lock.release()
    assert not (tmp_path / "lock").exists()
