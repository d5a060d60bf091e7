"""The fast tokenizer on real texts with published vocabularies: every id is Hugging Face's."""

from __future__ import annotations

import tarfile
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from espalier.tokens.fast import load_fast_tokenizer

SHARED = Path(__file__).resolve().parents[3] / "shared"
TOKENIZERS = {
    "gpt2": SHARED / "models/gpt2-tokenizer/tokenizer.json",
    "seedling": Path(str(files("espalier"))) / "models/seedling/tokenizer.json",
    "stories260K": SHARED / "models/stories260K/tokenizer.json",
}


def _texts() -> list[str]:
    """Every fourth PEP, and pieces of the parsers' fixtures in other languages."""
    with tarfile.open(SHARED / "data/peps/peps_even_rst.tar.gz") as archive:
        members = [member for member in archive.getmembers() if member.isfile()][::4]
        peps = [archive.extractfile(member).read().decode(errors="replace") for member in members]  # type: ignore[union-attr]
    documents = sorted((SHARED / "data/documents").rglob("*.md"))
    return peps + [path.read_text(errors="replace")[:50_000] for path in documents]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared")
@pytest.mark.parametrize("name", TOKENIZERS)
def test_real_texts_get_the_ids_of_tokenizers(name: str) -> None:
    texts = _texts()
    assert sum(map(len, texts)) > 1_000_000
    fast = load_fast_tokenizer(TOKENIZERS[name])
    backend = Tokenizer.from_file(str(TOKENIZERS[name]))
    expected = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    assert fast.path.startswith("word cache")
    assert fast.encode(pa.array(texts)).to_pylist() == expected
    assert fast.count(pa.array(texts)).tolist() == [len(ids) for ids in expected]
