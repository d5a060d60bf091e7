"""A real published checkpoint goes through our loading code and says what its author published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from espalier.nn.base import load_base

FOLDER = Path(__file__).parents[3] / "shared" / "models" / "stories260K"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the published checkpoint is not beside the repository")
def test_stories260k_tells_the_published_story() -> None:
    page = (FOLDER / "UPSTREAM_stories260K.md").read_text()
    published = page.split("-t 0.0\n", 1)[1].split("\n```", 1)[0]
    base = load_base(f"path:{FOLDER}")
    start = torch.tensor([[1]])  # its beginning-of-text token
    ids = base.model.generate(start, attention_mask=torch.ones_like(start), do_sample=False, max_new_tokens=256)
    assert base.tokenizer.decode(ids[0].tolist()).startswith(published)
