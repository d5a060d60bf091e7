"""Word lists: whole words, in any case and script, and only in the language they are for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Document, Span
from espalier.data.clean.toxicity import ToxicitySpec, WordSieve, compile_phrases, prepare
from espalier.data.flow.batch import to_batch

WORDS = "# mild words, for the test\nblast\ndarned  fool   # a phrase\nÄrger\n馬鹿\nblast it all\n"


def sieve(folder: Path, **more: object) -> WordSieve:
    (folder / "words.txt").write_text(WORDS)
    (folder / "words.de.txt").write_text("Mist\n")
    return prepare(ToxicitySpec.model_validate({"lists": ["words.txt", "words.de.txt"], **more}), folder)


@pytest.mark.parametrize(
    ("text", "phrases", "words"),
    [
        ("Blast!", 1, 1),
        ("blast blast,BLAST", 3, 3),
        ("blasted blaster, reblast", 0, 0),
        ("you darned\n fool.", 1, 2),
        ("ärger und ÄRGER", 2, 2),
        ("blast it all", 1, 3),
        ("blast it allright", 1, 1),
        ("彼は馬鹿だ", 1, 1),
        ("blast2 blast_ 2blast", 0, 0),
        ("", 0, 0),
    ],
)
def test_whole_phrases_are_found(text: str, phrases: int, words: int, tmp_path: Path) -> None:
    assert sieve(tmp_path).count(text) == (phrases, words)


def test_a_list_of_a_language_is_for_its_documents_beside_the_common_one(tmp_path: Path) -> None:
    found = sieve(tmp_path)
    assert found.count("Mist, blast", "de") == (2, 2)
    assert found.count("Mist, blast", "en") == found.count("Mist, blast") == (1, 1)


def test_documents_are_tagged_with_the_share_and_dropped_above_the_limit(tmp_path: Path) -> None:
    texts = ["a good text", "blast this text", "oh blast the thing and all of its kin, I say"]
    batch = to_batch([Document(f"d{n}", text, Span("0" * 64, "u")) for n, text in enumerate(texts)])
    flagged = sieve(tmp_path).apply(batch)
    assert flagged.reasons is None and flagged.counts == {"flagged": 2, "matches": 2}
    assert flagged.tags["toxicity"].to_pylist() == [None, "0.3333", "0.0909"]
    dropped = sieve(tmp_path, max_share=0.1).apply(batch)
    assert dropped.reasons.to_pylist() == [None, "toxic: 1 of 3 words are listed (0.3333), max_share is 0.1", None]


@given(st.lists(st.sampled_from(["ab", "b", "a b", "abc", "c", "é"]), min_size=1, max_size=4), st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_found_phrases_are_those_a_plain_search_finds(phrases: list[str], data: st.DataObject) -> None:
    text = data.draw(st.text(st.sampled_from(list("abcé .1_\n")), max_size=20))
    ordered = sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    either = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in ordered)
    expected = re.findall(rf"(?<!\w)(?:{either})(?!\w)", text)
    found = WordSieve(ToxicitySpec(lists=("x",)), {"": compile_phrases(phrases)}).count(text)
    assert found == (len(expected), sum(len(phrase.split()) for phrase in expected))


def test_a_list_that_is_absent_empty_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        prepare(ToxicitySpec(lists=("nowhere.txt",)), tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    with pytest.raises(InvalidInput, match="no word"):
        prepare(ToxicitySpec(lists=("empty.txt",)), tmp_path)
    (tmp_path / "latin.txt").write_bytes("Ärger".encode("latin-1"))
    with pytest.raises(InvalidInput, match="not UTF-8"):
        prepare(ToxicitySpec(lists=("latin.txt",)), tmp_path)
