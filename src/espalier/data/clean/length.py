"""Drops documents that are too short or too long to learn from. Knows characters and words, not tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from espalier.core.types import Spec
from espalier.data.clean.rewriting import say_drops
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.step import CleanStep
from espalier.data.kernels.buffers import is_worth_compiling, view_texts


class LengthSpec(Spec):
    """Drop by length."""

    step: Literal["length"] = "length"
    min_chars: int = Field(20, ge=0, description="fewest characters")
    max_chars: int = Field(200_000, ge=1, description="most characters")
    min_words: int = Field(3, ge=0, description="fewest words (parted by white space)")


@dataclass(frozen=True, slots=True)
class LengthCheck:
    """The prepared step: drops with "too short: ..." or "too long: ..."."""

    spec: LengthSpec

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        spec, texts = self.spec, batch.column("text")
        chars, words = pc.utf8_length(texts).to_numpy(zero_copy_only=False), count_words(texts)
        reasons: list[str | None] = [None] * len(batch)
        outside = (chars < spec.min_chars) | (words < spec.min_words) | (chars > spec.max_chars)
        for row in np.flatnonzero(outside).tolist():
            if chars[row] < spec.min_chars:
                reasons[row] = f"too short: {chars[row]} characters, min_chars is {spec.min_chars}"
            elif words[row] < spec.min_words:
                reasons[row] = f"too short: {words[row]} words, min_words is {spec.min_words}"
            else:
                reasons[row] = f"too long: {chars[row]} characters, max_chars is {spec.max_chars}"
        return say_drops(reasons)


def count_words(texts: pa.LargeStringArray) -> npt.NDArray[np.int64]:
    """What stands between white space, of each row. (n,)"""
    if not is_worth_compiling(texts):
        return np.fromiter((len(text.split()) for text in texts.to_pylist()), np.int64, len(texts))
    from espalier.data.kernels import lengths

    counts = np.empty(len(texts), np.int64)
    lengths.count_words(*view_texts(texts), counts)
    return counts


def prepare(spec: LengthSpec, folder: Path) -> LengthCheck:
    """Ready to run; names no file."""
    return LengthCheck(spec)


STEP = CleanStep("length", 2, LengthSpec, prepare)
