"""kill -9 at any moment of a training: the same job goes on and ends in an undisturbed run's bytes.

A process that has imported everything forks one child for each attempt, and kills it a random number of events and
milliseconds after its start: while it lays out data, computes a reference, is within a step or writes a checkpoint.
ESPALIER_KILLS says how often a run is killed before it may finish.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from espalier.core.types import Example, Message
from espalier.store.examples import write_examples
from espalier.testing.tiny import make_tiny_base

KILLS = int(os.environ.get("ESPALIER_KILLS", "3"))

_TRAIN = """
import hashlib, json, os, random, shutil, signal, sys, time
from pathlib import Path
from espalier.train.corpus import Source
from espalier.train.method import load_method
from espalier.train.job import Job
from espalier.train.runner import run

home, kills, cases = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])

def attempt(root, method, spec, dataset, name, events=0, delay_s=0.0):
    "Whether it ended by itself; else it was killed `delay_s` after that many events. Its events are printed."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        def tell(event):
            os.write(writer, f"{event.kind} {event.data.get('step', '')}\\n".encode())
        sources = (Source("", home / dataset),)
        folders = [root / name / part for part in ("out", "state", "cache")]
        try:
            run(Job(method, spec, sources, *folders), tell)
        except BaseException as error:
            print(f"failed {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        for number, line in enumerate(stream, 1):
            if number == events:
                time.sleep(delay_s)
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(1)
    return os.WIFEXITED(status)

def digest(folder):
    return hashlib.sha256((folder / "out" / "adapter_model.safetensors").read_bytes()).hexdigest()

def play(root, method, dataset, more):
    spec = load_method(method).spec(
        base=f"path:{home / 'base'}", epochs=4, lr=1e-2, pack_tokens=256, packs_per_step=2, checkpoint_every_steps=1,
        threads=1, evaluations=3, **more,
    )
    chance = random.Random(f"{method}/{more}")
    given = (root, method, spec, dataset)
    attempt(*given, "whole")
    done, ends = 0, []
    while done < kills:
        shutil.rmtree(root / "killed", ignore_errors=True)
        while done < kills:
            if attempt(*given, "killed", chance.randint(1, 9), chance.random() * 0.05):
                break
            done += 1
            if (root / "killed" / "out" / "adapter_model.safetensors").exists():
                ends.append(digest(root / "killed"))  # what is there is whole
        attempt(*given, "killed")
        ends.append(digest(root / "killed"))
    return {"kills": done, "whole": digest(root / "whole"), "ends": sorted(set(ends))}

print(json.dumps({name: play(home / name, *case) for name, case in cases.items()}))
"""


CASES: dict[str, tuple[str, str, dict[str, object]]] = {
    "sft": ("sft", "chats", {"lora": {"rank": 4, "alpha": 8}}),
    "sft with dropout": ("sft", "chats", {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}),
    "dpo": ("dpo", "pairs", {"lora": {"rank": 4, "alpha": 8}}),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the one process that imported everything tells of each case."""
    tmp_path = tmp_path_factory.mktemp("crash")
    make_tiny_base(tmp_path / "base", seed=2)
    questions = [[Message("user", f"Say {n}. " * (1 + n % 4))] for n in range(40)]
    answers = [[Message("assistant", f"<n>{n}</n>")] for n in range(40)]
    worse = [[Message("assistant", "lazy dog " * (1 + n % 3))] for n in range(40)]
    rows = {
        "chats": [Example(f"e{n}", [*questions[n], *answers[n]]) for n in range(40)],
        "pairs": [Example(f"p{n}", questions[n], chosen=answers[n], rejected=worse[n]) for n in range(40)],
    }
    for name, examples in rows.items():
        write_examples(tmp_path / name / "data" / "train-00000.parquet", examples)
    command = [sys.executable, "-c", _TRAIN, str(tmp_path), str(KILLS), json.dumps(CASES)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(60 + 240 * KILLS)
@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_started_again_gives_the_undisturbed_adapter(told: dict[str, Any], case: str) -> None:
    assert told[case]["kills"] == KILLS
    assert told[case]["ends"] == [told[case]["whole"]]
