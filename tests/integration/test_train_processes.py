"""One training in several processes: the bytes of one process, whoever starts them and whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest

from espalier.core.errors import Interrupted, Unavailable
from espalier.core.events import Event, ignore
from espalier.core.types import Example, Message
from espalier.nn.lora import LoraSpec
from espalier.store.examples import write_examples
from espalier.testing.tiny import make_tiny_base
from espalier.train import launch as train_launch
from espalier.train import tuning
from espalier.train.corpus import Source
from espalier.train.job import Job
from espalier.train.launch import launch
from espalier.train.recipe import SftSpec, WhereSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # starts up to three processes, each of which imports torch

_TWO = {"kind": "processes", "workers": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    make_tiny_base(folder / "base", seed=2)
    examples = [
        Example(f"e{n}", [Message("user", f"Say {n}. " * (1 + n % 4)), Message("assistant", f"<n>{n}</n>")])
        for n in range(30)
    ]
    write_examples(folder / "dataset" / "data" / "train-00000.parquet", examples)
    return folder


@pytest.fixture(scope="module")
def alone(root: Path) -> str:
    """What one process makes of it."""
    return _train(root, "alone")


def _job(root: Path, name: str, **more: Any) -> Job:
    # Three packs a step on two processes: the last one of a step is computed by one process alone.
    recipe = {"epochs": 4, "lr": 1e-2, "pack_tokens": 64, "packs_per_step": 3, "checkpoint_every_steps": 2, **more}
    spec = SftSpec(base=f"path:{root / 'base'}", lora=LoraSpec(rank=4, alpha=8), **recipe)
    at = root / name
    source = Source("", root / "dataset")
    return Job("sft", spec, (source,), at / "out", checkpoint_dir=at / "state", cache_dir=at / "cache")


def _train(root: Path, name: str, emit: Callable[[Event], None] = ignore, **more: Any) -> str:
    job = _job(root, name, **more)
    launch(job, emit)
    return sha256((job.out_dir / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_several_processes_write_the_bytes_of_one(root: Path, alone: str, kind: str) -> None:
    if kind == "ray":
        pytest.importorskip("ray")
    told: list[Event] = []
    assert _train(root, kind, told.append, where={"kind": kind, "workers": 2}) == alone
    steps = [event.data["step"] for event in told if event.kind == "train.step"]
    assert steps == list(range(1, steps[-1] + 1))  # one process tells, the others are silent
    assert told[-1].kind == "train.done"


# A member that waits, once it has told of its second step or of going on, until it is to stop or the other is dead:
# however late the test looks, the training has not ended.
_WAITING = """
import sys, time
from pathlib import Path
from espalier.train import member

folder, plain = Path(sys.argv[1]), member._write_events

def write_events(folder):
    write = plain(folder)

    def tell(event):
        write(event)
        while event.kind == "train.resumed" or event.data.get("step") == 2:
            if any((folder / name).exists() for name in ("stop", "killed")):
                break
            time.sleep(0.01)

    return tell

member._write_events = write_events
member.main()
"""


def test_a_run_stopped_and_one_whose_process_is_killed_go_on_to_the_same_bytes(
    root: Path, alone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = root / "waiting_member.py"
    program.write_text(_WAITING)
    plain = train_launch._command

    def command(where: WhereSpec, folder: Path) -> list[str]:
        *start, _, _, place = plain(where, folder)  # -m espalier.train.member FOLDER
        return [*start, str(program), place]

    def stop(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 2:
            raise Interrupted("enough for today")

    def kill_second(event: Event) -> None:
        if event.kind == "train.resumed":
            _member(program, rank=1).kill()
            (root / "disturbed" / "state" / "processes" / "killed").touch()

    with monkeypatch.context() as patch:
        patch.setattr(train_launch, "_command", command)
        with pytest.raises(Interrupted, match="enough for today"):
            _train(root, "disturbed", stop, where=_TWO)
        assert list((root / "disturbed" / "state").glob("step-*"))
        with pytest.raises(Unavailable, match="process 2 of 2 was killed"):
            _train(root, "disturbed", kill_second, where=_TWO)
    assert not (root / "disturbed" / "out").exists()
    assert _train(root, "disturbed", where=_TWO) == alone


def _member(program: Path, rank: int) -> psutil.Process:
    """The process of that rank among those of the program that were started from here."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # an earlier one, at its end
            if str(program) in process.cmdline() and process.environ().get("RANK") == str(rank):
                return process
    raise LookupError(f"no process of rank {rank}")


def test_a_base_spread_over_processes_learns_what_a_whole_one_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = _train(root, "spread", where={**_TWO, "shard": True})
    monkeypatch.setattr(tuning, "lean_shape", lambda config: None)  # the same code, transformers', in one process
    assert spread == _train(root, "whole")


_SPREAD = """
import sys
from pathlib import Path
import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from espalier.nn.adapters import attach_adapters
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.nn.probe import transformer_backbone
from espalier.nn.sharding import shard_layers
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import join, lay
from espalier.train.objective import Likelihood, StepTotals

def losses(base, adapters):
    backbone = transformer_backbone(base.model, adapters.named_parameters())
    objective, found = Likelihood(), []
    for number in range(2):
        pack = join([lay(Tokenized("d", list(range(number, number + 20)), [0.0] + [1.0] * 19))])
        loss = objective.loss(backbone, pack, StepTotals(objective.weigh(pack))).value
        found.append((loss.detach(), torch.autograd.grad(loss, list(adapters.parameters()))))
    return found

dist.init_process_group("gloo")
bases = [load_base("path:" + sys.argv[1], dtype="float32", device="cpu") for _ in range(2)]
adapters = [attach_adapters(base.model, LoraSpec(rank=4, alpha=8), 0) for base in bases]
for one in adapters:
    for seed, tensor in enumerate(one.parameters()):
        with torch.no_grad():
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)) * 0.1)
shard_layers(bases[1].model)
held = [p.to_local().numel() / p.numel() for p in bases[1].model.parameters() if isinstance(p, DTensor)]
assert held and all(share == 0.5 for share in held), held
assert not any(isinstance(tensor, DTensor) for tensor in adapters[1].parameters())
for (whole, grads), (spread, others) in zip(losses(bases[0], adapters[0]), losses(bases[1], adapters[1])):
    torch.testing.assert_close(spread, whole, rtol=1e-6, atol=0)
    for one, other in zip(grads, others):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-8)
dist.destroy_process_group()
"""


def test_half_of_every_layer_lies_on_each_process_and_loss_and_gradients_are_the_whole_ones(root: Path) -> None:
    (root / "spread.py").write_text(_SPREAD)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    local = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    done = subprocess.run(
        [*command, *local, str(root / "spread.py"), str(root / "base")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr
