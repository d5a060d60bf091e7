"""The model that ships: small enough for the wheel, the one its card names, and able to copy what it was asked for."""

from __future__ import annotations

from hashlib import sha256

import pytest
import torch

from espalier.core.types import Message
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.locate import locate_base


@pytest.fixture(scope="module")
def seedling() -> LoadedBase:
    return load_base("builtin:seedling")


def _answer(base: LoadedBase, question: str) -> str:
    ids = torch.tensor([base.tokenizer.encode_prompt([Message("user", question)])])
    out = base.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    return base.tokenizer.decode(out[0, ids.shape[1] :].tolist())


def test_the_folder_fits_the_wheel() -> None:
    folder = locate_base("builtin:seedling")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 16_000_000


def test_the_card_names_the_weights_that_ship() -> None:
    folder = locate_base("builtin:seedling")
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()


def test_every_pair_of_digits_is_one_token(seedling: LoadedBase) -> None:
    assert all(len(seedling.tokenizer.encode(f"{pair:02d}")) == 1 for pair in range(100))


@pytest.mark.parametrize("value", ["BX-20417", "2031-05-19", "Brindle Thermal Camera", "moved the access point"])
def test_it_copies_values_it_has_never_seen(seedling: LoadedBase, value: str) -> None:
    assert _answer(seedling, f'See "{value}". It rained.\nWhat is inside ""?') == value
