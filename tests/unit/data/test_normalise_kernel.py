"""The compiled normaliser gives what the plain one gives."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.types import Document, Span
from espalier.data.clean import normalise as module
from espalier.data.clean.normalise import NormaliseSpec, normalise_text, normalise_texts, prepare
from espalier.data.flow.batch import SCHEMA, to_batch

SPECS = [
    NormaliseSpec(),
    NormaliseSpec(form="NFKC"),
    NormaliseSpec(plain_quotes=False),
    NormaliseSpec(form="NFKC", plain_quotes=False),
]
# What the rules speak of, and what composes, in far greater density than in any text.
_TRICKY = st.text(
    st.sampled_from(
        list(" \t\n\r\f\v\x00\x1c\x1f\x7f\x85\xa0\u2028\u3000\u200b\ufeff’“–…ab.é\u0301\u0327ﬁ각각漢中😀\u09be")
    ),
    max_size=40,
)


@pytest.fixture(autouse=True)
def always_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_worth_compiling", lambda texts: True)


def column(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


@given(st.lists(_TRICKY | st.text(max_size=30), max_size=6))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_the_kernel_gives_what_the_plain_function_gives(texts: list[str]) -> None:
    for spec in SPECS:
        expected = [normalise_text(text, spec) for text in texts]
        assert normalise_texts(column(texts), spec).to_pylist() == expected


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_character_between_letters_and_alone_is_treated_alike(spec: NormaliseSpec) -> None:
    characters = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x10000), *range(0x1F000, 0x20100))]
    texts = ["".join(f"a{c}o\n {c} " for c in characters[at : at + 7]) for at in range(0, len(characters), 7)]
    assert normalise_texts(column(texts), spec).to_pylist() == [normalise_text(text, spec) for text in texts]


def test_only_rows_that_may_compose_are_handed_back() -> None:
    actions = module.list_actions("NFC", True)
    from espalier.data.kernels.whitespace import HARD

    hard = {chr(code) for code in range(len(actions)) if actions[code] == HARD}
    assert not hard & set("abcÄÖÜéñßабвгαβγ漢字中文あいうえおكتاب")
    assert {"\u0301", "\u1161", "\u212b"} <= hard
    # Whatever the kernel copies never changes, whatever stands before it.
    soft = [chr(code) for code in range(0xA0, 0xD800) if chr(code) not in hard]
    assert all(unicodedata.is_normalized("NFC", base + c) for base in ("a", "가", "\u09c7") for c in soft)


def test_a_slice_of_a_column_is_normalised_by_itself() -> None:
    texts = column(["x  y", " a  b ", "c\r\n", "e\u0301"])
    assert normalise_texts(texts.slice(1, 2), NormaliseSpec()).to_pylist() == ["a b", "c"]
    assert normalise_texts(texts.slice(3), NormaliseSpec()).to_pylist() == ["é"]
    assert normalise_texts(texts.slice(4), NormaliseSpec()).to_pylist() == []


def test_bytes_that_are_no_utf8_are_refused_and_nothing_is_read_beyond_them(tmp_path: object) -> None:
    offsets, data = pa.py_buffer(b"\0" * 8 + (3).to_bytes(8, "little")), pa.py_buffer(b"ab\xf0")
    broken = pa.LargeStringArray.from_buffers(1, offsets, data)
    with pytest.raises(UnicodeDecodeError):
        normalise_texts(broken, NormaliseSpec())


def batch_of(*texts: str) -> pa.RecordBatch:
    return to_batch([Document(f"d{n}", text, Span("0" * 64, "a.txt")) for n, text in enumerate(texts)])


def test_a_batch_that_is_normal_already_gives_no_new_texts(tmp_path) -> None:  # type: ignore[no-untyped-def]
    outcome = prepare(NormaliseSpec(), tmp_path).apply(batch_of("a b", "ü"))
    assert outcome.texts is None and outcome.counts == {"changed": 0}


def test_messages_are_normalised_when_asked_for(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = batch_of("a  b").to_pylist()
    rows[0]["messages"] = [{"role": "user", "content": "c  d", "weight": None}]
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA)
    left = prepare(NormaliseSpec(), tmp_path).apply(batch)
    assert left.texts.to_pylist() == ["a b"] and left.conversations == {} and left.counts == {"changed": 1}
    changed = prepare(NormaliseSpec(messages=True), tmp_path).apply(batch)
    assert changed.conversations["messages"].to_pylist()[0][0]["content"] == "c d"
