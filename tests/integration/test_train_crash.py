"""kill -9 in mid-training: the same call goes on from its checkpoint and ends in an undisturbed run's bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from espalier.core.types import Example, Message
from espalier.store.examples import write_examples
from espalier.testing.tiny import make_tiny_base

_TRAIN = """
import os, signal, sys
from pathlib import Path
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.train.methods.sft import sft
from espalier.train.recipe import SftSpec

root, out, kill_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
spec = SftSpec(
    epochs=2, lora=LoraSpec(rank=4, alpha=8, dropout=float(sys.argv[4])), lr=1e-2, pack_tokens=256,
    packs_per_step=2, checkpoint_every_steps=2,
)

def watch(event):
    print(event.kind, event.data.get("step", ""), flush=True)
    if event.kind == "train.step" and event.data["step"] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

base = load_base(f"path:{root / 'base'}")
result = sft(spec, base, root / "dataset", root / out, checkpoint_dir=root / f"{out}-state", emit=watch)
print("sha", result.adapter_sha256)
"""


def _train(root: Path, out: str, *, kill_at: int = 0, dropout: float = 0.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _TRAIN, str(root), out, str(kill_at), str(dropout)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_tiny_base(tmp_path / "base", seed=2)
    examples = [
        Example(f"e{n}", [Message("user", f"Say {n}. " * (1 + n % 4)), Message("assistant", f"<n>{n}</n>")])
        for n in range(40)
    ]
    write_examples(tmp_path / "dataset" / "data" / "train-00000.parquet", examples)
    return tmp_path


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["lean", "transformers with dropout"])
def test_a_killed_run_started_again_gives_the_undisturbed_adapter(root: Path, dropout: float) -> None:
    undisturbed = _train(root, "whole", dropout=dropout)
    assert undisturbed.returncode == 0, undisturbed.stderr
    killed = _train(root, "killed", kill_at=5, dropout=dropout)
    assert killed.returncode == -9
    assert not (root / "killed").exists()
    again = _train(root, "killed", dropout=dropout)
    assert again.returncode == 0, again.stderr
    assert "train.resumed 4" in again.stdout
    assert again.stdout.splitlines()[-1] == undisturbed.stdout.splitlines()[-1]
