"""Checkpoints: whole or absent, the newest whole one wins, a full disk loses nothing."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from espalier.core.errors import StorageFull
from espalier.train import checkpoint


def _tensors(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 2), value), "count": torch.tensor(7)}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 5, _tensors(1.5), {"identity": "x", "loss": 0.25})
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found.step, found.state["identity"], found.state["loss"]) == (5, "x", 0.25)
    assert torch.equal(found.tensors["w"], torch.full((3, 2), 1.5))


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        checkpoint.write(tmp_path, step, _tensors(step), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]


@pytest.mark.parametrize("damage", ["tensors.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    checkpoint.write(tmp_path, 1, _tensors(1), {})
    path = checkpoint.write(tmp_path, 2, _tensors(2), {}) / damage
    path.write_bytes(path.read_bytes()[:-9])
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 1


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "never") is None


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.write(tmp_path, 1, _tensors(1), {})

    def full(path: Path, pieces: Iterable[memoryview]) -> str:
        path.write_bytes(next(iter(pieces))[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(StorageFull, match="disk is full"):
        checkpoint.write(tmp_path, 2, _tensors(2), {})
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_tensors_of_every_type_and_shape_come_back_and_the_file_does_not_depend_on_their_order(tmp_path: Path) -> None:
    tensors = {
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2, dtype=torch.int64),
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "view": torch.randn(4, 6)[:, ::2],
        "flags": torch.tensor([True, False, True]),
        "learns": torch.randn(2, 2, requires_grad=True),
    }
    path = checkpoint.write(tmp_path / "a", 1, tensors, {})
    other = checkpoint.write(tmp_path / "b", 1, dict(reversed(tensors.items())), {})
    found = checkpoint.newest(tmp_path / "a")
    assert found is not None and found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert (path / "tensors.safetensors").read_bytes() == (other / "tensors.safetensors").read_bytes()
