"""Says which language a text is in, by its first kilobytes, and drops those nobody asked for.

The model is py3langid's (BSD-3-Clause, 139 languages, in its wheel: nothing is downloaded), by the method of Lui and
Baldwin 2012, https://aclanthology.org/P12-3005. Its automaton and sums run compiled, in one order, so a text has one
answer everywhere.

Legend: n = rows, c = classes of the model.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from espalier.core.errors import MissingExtra
from espalier.core.types import Spec
from espalier.data.clean.rewriting import say_drops
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.step import CleanStep
from espalier.data.kernels.buffers import view_texts

if TYPE_CHECKING:
    from espalier.data.kernels.languages import Tables

UNKNOWN = "und"  # ISO 639-2 for undetermined


class LanguageSpec(Spec):
    """Tag every document with its language; keep only some, when asked."""

    step: Literal["language"] = "language"
    keep: tuple[str, ...] = Field(
        (), description="languages to keep (ISO 639-1, such as en); empty: all. `und` keeps what is too unsure to tell"
    )
    min_confidence: float = Field(
        0.3, ge=0, le=1, description="under this probability a document's language is `und`: not determined"
    )
    sample_bytes: int = Field(1024, ge=64, description="so much of the text is looked at, from its start")


@dataclass(frozen=True, slots=True)
class LanguageTagger:
    """The prepared step: tag `language`; drops with "language de: probability 0.99, kept are en". Counts each one."""

    spec: LanguageSpec

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        spec = self.spec
        languages, confidence = identify(batch.column("text"), spec.sample_bytes)
        sure = confidence >= spec.min_confidence
        told = [name if good else UNKNOWN for name, good in zip(languages, sure.tolist(), strict=True)]
        wanted = set(spec.keep)
        outcome = say_drops(
            [
                f"language {name}: probability {share:.2f}, kept are {', '.join(spec.keep)}"
                if wanted and name not in wanted
                else None
                for name, share in zip(told, confidence.tolist(), strict=True)
            ]
        )
        outcome.tags = {"language": pa.array(told, pa.string())}
        outcome.counts = {name: told.count(name) for name in sorted(set(told))}
        return outcome


def identify(texts: pa.LargeStringArray, sample_bytes: int) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The likeliest language of each text and its probability (n,). "zxx" is no language: code, numbers, gibberish."""
    from espalier.data.kernels.languages import score_rows

    names, aliases, tables = load_model()
    samples = [_sample(data) for data in _first_bytes(texts, sample_bytes)]
    lengths = np.fromiter(map(len, samples), np.int64, len(samples))
    scores = np.empty((len(samples), len(names)), np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    score_rows(np.frombuffer(b"".join(samples) or b"\0", np.uint8), offsets, tables, scores)
    # A temperature of sqrt(bytes) keeps probabilities comparable across lengths, as py3langid has it.
    scaled = scores.astype(np.float64) / np.sqrt(np.maximum(lengths, 1))[:, None]
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    shares /= shares.sum(axis=1, keepdims=True)
    for first, other in aliases:
        shares[:, first] += shares[:, other]
        shares[:, other] = 0
    best = shares.argmax(axis=1)
    return [names[index] for index in best.tolist()], shares[np.arange(len(best)), best]


@functools.cache
def load_model() -> tuple[list[str], list[tuple[int, int]], Tables]:
    """Names of the classes (c,), pairs of classes with one name, and the tables. Raises MissingExtra."""
    from espalier.data.kernels.languages import Tables

    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise MissingExtra("telling languages needs py3langid", hint="pip install 'py3langid>=0.4,<0.5'") from error
    model: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
    names: list[str] = list(model.nb_classes)
    aliases = [(names.index(name), index) for index, name in enumerate(names) if names.index(name) < index]
    tables = Tables(
        np.array(model.tk_nextmove, np.uint32),
        np.array(model.tk_row, np.int64) << 8,
        np.array(model.tk_output, np.int32),
        np.ascontiguousarray(model.nb_ptc, np.float32),
        np.ascontiguousarray(model.nb_pc, np.float32),
    )
    return names, aliases, tables


def _first_bytes(texts: pa.LargeStringArray, most: int) -> list[bytes]:
    data, offsets = view_texts(texts)
    starts = offsets[:-1].tolist()
    ends = np.minimum(offsets[1:], offsets[:-1] + most).tolist()
    return [data[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]


def _sample(data: bytes) -> bytes:
    """What the model was trained on: whole characters, composed, and no text in capitals alone."""
    text = data.decode(errors="ignore")
    return unicodedata.normalize("NFC", text.lower() if text.isupper() else text).encode()


def prepare(spec: LanguageSpec, folder: Path) -> LanguageTagger:
    """Ready to run; names no file. Raises MissingExtra where py3langid is absent."""
    load_model()
    return LanguageTagger(spec)


STEP = CleanStep("language", 1, LanguageSpec, prepare)
