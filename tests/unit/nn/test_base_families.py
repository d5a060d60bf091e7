"""A base of every family loads, computes as transformers does, and knows where its answers end."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.nn.base import load_base
from espalier.testing.families import FAMILIES, make_family


@pytest.mark.parametrize("name", FAMILIES)
def test_a_base_of_the_family_loads_and_its_templates_end_of_turn_ends_its_answers(name: str, tmp_path: Path) -> None:
    base = load_base(f"path:{make_family(name, tmp_path)}")
    assert base.tokenizer.turn_end_id in base.eos_ids
    assert base.tokenizer.eos_id in base.eos_ids
    assert base.config._attn_implementation == ("eager" if name == "gemma-2" else "sdpa")  # sdpa knows no softcap


def test_gemma_loads_into_four_bits_with_the_scale_of_its_embedding(tmp_path: Path) -> None:
    base = load_base(f"path:{make_family('gemma-2', tmp_path)}", quantise="nf4")
    assert float(base.model.model.embed_tokens.embed_scale) == pytest.approx(base.config.hidden_size**0.5)
    assert base.config._attn_implementation == "eager"
