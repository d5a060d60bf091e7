"""A random base of two layers and a dataset of made-up questions, for every training test."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from espalier.core.events import Event, ignore
from espalier.core.types import Example, Message
from espalier.store.examples import write_examples
from espalier.testing.tiny import make_tiny_base
from espalier.train.corpus import Source
from espalier.train.job import Job, TrainResult
from espalier.train.recipe import TrainSpec
from espalier.train.runner import run


def make_examples(count: int, split: str = "train") -> list[Example]:
    """Questions whose answer is in the question, of many lengths."""
    return [
        Example(
            id=f"{split}-{n}",
            messages=[
                Message("user", f"Give the code. {'The fox is quick. ' * (n % 5)}The code is {n:03d}."),
                Message("assistant", f"<code>{n:03d}</code>"),
            ],
            split=split,  # type: ignore[arg-type]
        )
        for n in range(count)
    ]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny", seed=1)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_examples(tmp_path / "dataset" / "data" / "train-00000.parquet", make_examples(40))
    write_examples(tmp_path / "dataset" / "data" / "validation-00000.parquet", make_examples(6, "validation"))
    return tmp_path / "dataset"


Train = Callable[..., TrainResult]


@pytest.fixture
def train(tiny_base: Path, tmp_path: Path) -> Train:
    """Do a job: `train(dataset, spec, name=..., emit=..., adapter=...)` writes to tmp_path/name."""

    def do(
        dataset: Path,
        spec: TrainSpec,
        *,
        name: str = "a",
        emit: Callable[[Event], None] = ignore,
        adapter: Path | None = None,
        mix: tuple[Source, ...] = (),
    ) -> TrainResult:
        job = Job(
            method=spec.method or "sft",
            spec=spec.model_copy(update={"base": f"path:{tiny_base}"}),
            sources=(Source("", dataset), *mix),
            out_dir=tmp_path / name,
            checkpoint_dir=tmp_path / f"{name}-state",
            cache_dir=tmp_path / "cache",
            adapter=adapter,
        )
        return run(job, emit)

    return do


def digest_of_adapter(folder: Path) -> str:
    """sha256 of an adapter's weights."""
    return sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
