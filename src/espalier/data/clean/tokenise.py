"""Texts into token ids, by the tokenizer of the model they are meant for. Knows paths, not models.

Legend: n = rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from espalier.data.clean.cutting import Measure


def tokenise(texts: pa.LargeStringArray, tokenizer: Path) -> pa.LargeListArray:
    """The token ids of each text (n,), no special tokens added: large_list<int32>.

    tokenizer: a tokenizer.json, or the model folder it is in. Raises NotFound or InvalidInput for it.
    """
    from espalier.tokens.fast import load_fast_tokenizer

    return load_fast_tokenizer(tokenizer).encode(texts)


def load_measure(tokenizer: Path) -> Measure:
    """A function that says how many tokens each text has. Raises NotFound or InvalidInput."""
    from espalier.tokens.fast import load_fast_tokenizer

    fast = load_fast_tokenizer(tokenizer)

    def count(texts: Sequence[str]) -> list[int]:
        counts: list[int] = fast.count(pa.array(texts, pa.large_string())).tolist()
        return counts

    return count
