"""Finds the words and phrases of the user's own lists; tags a document with their share, or drops it.

Has no list of its own: what may not be said differs between a forum and a hospital. Knows words, not meaning: a list is
a sieve for people to look at, no judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Spec
from espalier.data.clean.length import count_words
from espalier.data.clean.rewriting import say_drops
from espalier.data.flow.batch import tag_column
from espalier.data.flow.outcome import Outcome
from espalier.data.flow.step import CleanStep


class ToxicitySpec(Spec):
    """Tag, or drop, documents by the words and phrases in your lists."""

    step: Literal["toxicity"] = "toxicity"
    lists: tuple[str, ...] = Field(
        min_length=1,
        description="text files with a word or phrase a line, # begins a comment; NAME.LL.txt (insults.de.txt) is only "
        "for documents whose tag `language` is LL",
    )
    max_share: float | None = Field(
        None, ge=0, le=1, description="drop documents in which more of the words are listed; null: only tag"
    )


_LANGUAGE = re.compile(r"\.([a-z]{2,3})\.[^.]+\Z")
_NO_LETTER = r"[^\pL\pM\pN_]"
# Thai to Lao, Burmese, Khmer, kana and CJK ideographs.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_MAX_MEMORY_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class WordSieve:
    """The prepared step: tag `toxicity` is the share of listed words, where there are any.

    Drops with "toxic: 3 of 120 words are listed (0.025), max_share is 0.01". Counts `flagged` documents and `matches`.
    """

    spec: ToxicitySpec
    patterns: dict[str, Any]  # language -> expression; "" for documents of any other

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        texts, limit = batch.column("text"), self.spec.max_share
        words = count_words(texts).tolist()
        tags: list[str | None] = []
        reasons: list[str | None] = []
        matches = 0
        for text, total, language in zip(
            texts.to_pylist(), words, tag_column(batch, "language").to_pylist(), strict=True
        ):
            found, listed = self.count(text, language or "")
            share = min(listed / total, 1.0) if total else 0.0
            matches += found
            tags.append(f"{share:.4f}" if found else None)
            dropped = limit is not None and share > limit
            reason = f"toxic: {listed} of {total} words are listed ({share:.4f}), max_share is {limit}"
            reasons.append(reason if dropped else None)
        outcome = say_drops(reasons)
        outcome.tags = {"toxicity": pa.array(tags, pa.string())}
        outcome.counts = {"flagged": len(tags) - tags.count(None), "matches": matches}
        return outcome

    def count(self, text: str, language: str = "") -> tuple[int, int]:
        """How many listed phrases a text holds, none within another, and how many words they are."""
        pattern = self.patterns.get(language, self.patterns.get(""))
        if pattern is None:
            return 0, 0
        data = f"\n{text}\n".encode()  # so that a phrase always has a neighbour to look at
        found = listed = at = 0
        while match := pattern.search(data, at):
            group = 1 if match.group(1) is not None else 2
            found += 1
            listed += len(match.group(group).split())
            at = match.end(group)
        return found, listed


def read_phrases(path: Path) -> list[str]:
    """The phrases of a list; raises NotFound, and InvalidInput for one that is empty or no UTF-8."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise NotFound(f"no word list {path}", hint="`lists` names files, relative to the source folder") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8: {error.reason} at byte {error.start}", where=str(path)) from None
    phrases = [" ".join(line.split("#")[0].split()) for line in lines]
    found = [phrase for phrase in phrases if phrase]
    if not found:
        raise InvalidInput("no word in the list", where=str(path), hint="write one word or phrase a line")
    return found


def compile_phrases(phrases: Sequence[str]) -> Any:
    """An expression whose group 1 is a phrase with no letter, mark or digit beside it; in any case, with any blanks.

    Scripts that write no spaces leave no such neighbours to look at: their phrases, group 2, count wherever they stand.
    """
    import re2

    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = _MAX_MEMORY_BYTES
    groups: tuple[list[str], list[str]] = ([], [])
    for phrase in sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase)):  # of two, the longer is meant
        groups[bool(_UNSPACED.match(phrase))].append(r"\s+".join(re2.escape(word) for word in phrase.split()))
    never = r"[^\x00-\x{10FFFF}]"
    spaced, unspaced = ("|".join(group) or never for group in groups)
    return re2.compile(f"{_NO_LETTER}({spaced}){_NO_LETTER}|({unspaced})".encode(), options)


def prepare(spec: ToxicitySpec, folder: Path) -> WordSieve:
    """Read the lists in `folder`; raises NotFound or InvalidInput for them."""
    by_language: dict[str, list[str]] = {"": []}
    for name in spec.lists:
        match = _LANGUAGE.search(name)
        by_language.setdefault(match[1] if match else "", []).extend(read_phrases(folder / name))
    common = by_language[""]
    patterns = {
        language: compile_phrases([*common, *phrases] if language else phrases)
        for language, phrases in by_language.items()
        if phrases
    }
    return WordSieve(spec, patterns)


STEP = CleanStep("toxicity", 1, ToxicitySpec, prepare, files=("lists",))
