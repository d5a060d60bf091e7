"""kill -9 in mid-training, then the same command: what was finished is kept, the adapter is the same to the byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from espalier.pipeline import run as pipeline_run
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.sdk.client import Client

_PATIENCE_S = 600
# Every process of ours reads this at its start. The one that trains stops for good at a step after its first
# checkpoint: however late the kill comes, the training has not ended.
_HOLD = """
import sys

if "espalier.pipeline.child" in sys.orig_argv:
    import threading
    import espalier.pipeline.work as work

    plain, saved = work.run_step, threading.Event()

    def run_step(request, send):
        def tell(what, **said):
            send(what, **said)
            kind = said.get("kind")
            if kind == "train.checkpoint":
                saved.set()
            elif kind == "train.step" and saved.is_set():
                threading.Event().wait()

        return plain(request, tell)

    work.run_step = run_step
"""


def run(folder: Path) -> list[str]:
    return [
        sys.executable, "-m", "espalier.cli.main", "run", "support.yaml", "--param", "epochs=2", "--json",
        "--workspace", str(folder),
    ]  # fmt: skip


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Every event of a kind in any run's log."""
    logs = (folder / ".espalier" / "runs").glob("*/events.jsonl")
    lines = [json.loads(line) for log in logs for line in log.read_text("utf-8").splitlines() if f'"{kind}"' in line]
    return [line for line in lines if line["kind"] == kind]


def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(
    make_house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, killed = make_house(tmp_path / "calm"), make_house(tmp_path / "killed")
    with monkeypatch.context() as patch, Client(calm) as client:  # in this process, as every process is to end alike
        patch.setattr(pipeline_run, "LocalExecutor", InlineExecutor)
        undisturbed = client.pipelines.run(recipe="support.yaml", param=("epochs=2",)).wait()

    (tmp_path / "hold").mkdir()
    (tmp_path / "hold" / "sitecustomize.py").write_text(_HOLD, "utf-8")
    held = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "hold"), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        run(killed), cwd=killed, stdout=subprocess.DEVNULL, start_new_session=True, env=held
    ) as process:
        deadline = time.monotonic() + _PATIENCE_S
        while not events_of(killed, "train.checkpoint"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not events_of(killed, "train.done")
    before = len(events_of(killed, "data.built"))

    again = json.loads(subprocess.run(run(killed), cwd=killed, check=True, stdout=subprocess.PIPE).stdout)
    assert events_of(killed, "train.resumed")[0]["step"] > 0
    assert len(events_of(killed, "data.built")) == before  # the dataset was kept
    assert again["outputs"] == undisturbed.outputs
