"""Chunks: small enough, where they say they are, and cut where a reader would cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from espalier.core.errors import NotFound
from espalier.core.types import Document, Span
from espalier.data.clean.chunk import ChunkSpec, cut_bytes, prepare
from espalier.data.clean.cutting import cut_sections, cut_sentences, cut_words, split_sentences
from espalier.data.clean.headings import find_sections
from espalier.data.clean.tokenise import tokenise
from espalier.data.flow.batch import SCHEMA, to_batch, to_documents
from espalier.data.flow.outcome import Outcome

_SPAN = Span("0" * 64, "a.md", 1, 100, 900)
_TEXT = st.lists(
    st.sampled_from(["word", " ", "\n", "\n\n", "  indented", "é漢😀", "x" * 30, ".", "\t"]), max_size=60
).map("".join)


def run(spec: ChunkSpec, *texts: str, **tags: str) -> Outcome:
    documents = [Document(f"d{n}", text, _SPAN, tags) for n, text in enumerate(texts)]
    return prepare(spec, Path()).apply(to_batch(documents))


def chunks(spec: ChunkSpec, *texts: str, **tags: str) -> list[str]:
    found: list[str] = run(spec, *texts, **tags).batch.column("text").to_pylist()
    return found


# By bytes


@given(st.lists(_TEXT, max_size=5), st.integers(16, 60), st.data())
@settings(max_examples=400, deadline=None, derandomize=True)
def test_chunks_by_bytes_are_small_enough_in_order_and_leave_no_word_out(
    texts: list[str], size: int, data: st.DataObject
) -> None:
    spec = ChunkSpec(
        size=size, overlap=data.draw(st.integers(0, size // 4)), min_size=data.draw(st.integers(0, size // 2))
    )
    cuts = cut_bytes(pa.array(texts, pa.large_string()), spec)
    found = list(zip(cuts.parents, cuts.texts.to_pylist(), cuts.first_chars, cuts.end_chars, strict=True))
    assert all(len(chunk.encode()) <= size and chunk.strip() == chunk.strip("\n").strip() for _, chunk, _, _ in found)
    assert all(texts[parent][first:end] == chunk and chunk.strip() for parent, chunk, first, end in found)
    for row, text in enumerate(texts):
        covered = {k for parent, _, first, end in found if parent == row for k in range(first, end)}
        assert all(k in covered or c.isspace() for k, c in enumerate(text))
        ends = [end for parent, _, _, end in found if parent == row]
        firsts = [first for parent, _, first, _ in found if parent == row]
        assert firsts == sorted(set(firsts)) and ends == sorted(ends)
        repeated = [len(text[b:a].encode()) for a, b in zip(ends, firsts[1:], strict=False) if b < a]
        assert all(count <= spec.overlap for count in repeated)


def test_a_text_is_cut_at_a_paragraph_before_a_line_before_a_space() -> None:
    spec = ChunkSpec(size=24)
    assert chunks(spec, "one two three\n\nfour\nfive six seven") == ["one two three", "four\nfive six seven"]
    assert chunks(spec, "one two three four\nfive six seven") == ["one two three four", "five six seven"]
    assert chunks(spec, "one two three four five six seven") == ["one two three four five", "six seven"]
    assert chunks(spec, "a" * 50) == ["a" * 24, "a" * 24, "aa"]
    assert chunks(spec, "é" * 15) == ["é" * 12, "é" * 3]


def test_a_chunk_repeats_words_of_the_one_before_when_asked() -> None:
    assert chunks(ChunkSpec(size=20, overlap=5), "one two three four five six") == [
        "one two three four",
        "four five six",
    ]


def test_a_short_rest_is_filled_up_from_the_chunk_before() -> None:
    text = "one two three four five"
    assert chunks(ChunkSpec(size=20), text) == ["one two three four", "five"]
    assert chunks(ChunkSpec(size=20, min_size=8), text) == ["one two three", "four five"]


def test_a_chunk_says_whose_it_is_and_where_it_stands() -> None:
    outcome = run(ChunkSpec(size=24), "one two three\n\nfour\nfive six seven", "short", format="md")
    assert outcome.reasons is None and outcome.parents.to_pylist() == [0, 0, 1]
    documents = list(to_documents(outcome.batch))
    assert [d.id for d in documents] == ["d0.1", "d0.2", "d1.1"]
    assert [(d.span.start, d.span.end) for d in documents] == [(100, 113), (115, 134), (100, 105)]
    assert [d.tags for d in documents] == [{"chunk": k, "format": "md"} for k in ("1", "2", "1")]
    assert outcome.counts == {"cut": 1, "chunks": 3} and outcome.batch.schema == SCHEMA
    outcome.batch.validate(full=True)


def test_a_chunk_of_a_document_over_pages_names_the_pages_it_is_on() -> None:
    pages = tuple(Span("0" * 64, "a.pdf", n) for n in (1, 2, 3))
    document = Document("d", "first page of it\n\f\nsecond page\n\f\nthird page", pages[0], continued=pages[1:])
    [one, two, *_] = to_documents(prepare(ChunkSpec(size=32), Path()).apply(to_batch([document])).batch)
    assert [(s.page, s.start, s.end) for s in one.spans] == [(1, 0, 17), (2, 0, 12)]
    assert two.text == "third page" and [(s.page, s.start, s.end) for s in two.spans] == [(3, 1, 11)]
    joined = Document("d", "pages no longer parted " * 3, pages[0], continued=pages[1:])
    [chunk, *_] = to_documents(prepare(ChunkSpec(size=32), Path()).apply(to_batch([joined])).batch)
    assert chunk.spans == pages


def test_conversations_and_table_rows_are_left_whole_and_blank_documents_are_dropped() -> None:
    rows = to_batch([Document(f"d{n}", "word " * 20, _SPAN) for n in range(3)]).to_pylist()
    rows[0]["messages"] = [{"role": "user", "content": "hello", "weight": None}]
    rows[1]["row"], rows[2]["text"] = '{"a": 1}', " \n\n "
    outcome = prepare(ChunkSpec(size=16), Path()).apply(pa.RecordBatch.from_pylist(rows, SCHEMA))
    assert outcome.batch.to_pylist() == rows[:2]
    assert outcome.reasons.to_pylist() == [None, None, "blank: there is no text to cut"]


def test_an_empty_batch_gives_an_empty_batch() -> None:
    for spec in (ChunkSpec(), ChunkSpec(by="sentences")):
        assert run(spec).batch.num_rows == 0


def test_a_slice_is_cut_by_itself() -> None:
    batch = to_batch([Document(f"d{n}", f"text of number {n} is this", _SPAN) for n in range(4)]).slice(2, 1)
    outcome = prepare(ChunkSpec(size=16), Path()).apply(batch)
    assert outcome.batch.column("text").to_pylist() == ["text of number", "2 is this"]


# By words, sentences and headings

_MEASURES: list[Any] = [
    None,
    lambda texts: [len(text.split()) for text in texts],
    lambda texts: [len(t.encode()) for t in texts],
]


@given(_TEXT, st.integers(8, 60), st.sampled_from(range(3)), st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_pieces_fit_and_leave_no_word_out(text: str, size: int, which: int, data: st.DataObject) -> None:
    measure = _MEASURES[which]
    overlap, least = data.draw(st.integers(0, size // 4)), data.draw(st.integers(0, size // 2))
    for cut in (cut_words, cut_sentences, lambda *rest: cut_sections(rest[0], "md", *rest[1:])):
        pieces = cut(text, size, overlap, least, measure)
        found = [text[piece.start : piece.end] for piece in pieces]
        assert all(piece.strip() for piece in found)
        assert max((measure or (lambda texts: list(map(len, texts))))(found), default=0) <= size
        covered = {k for piece in pieces for k in range(piece.start, piece.end)}
        assert all(k in covered or c.isspace() for k, c in enumerate(text))


def test_sentences_end_at_stops_and_not_at_abbreviations() -> None:
    text = 'Dr. No came (e.g. by boat). He said: "Go!" Then 3.5 hours passed... and he left. 今日は。明日。'
    text += "\n\nA heading\n\nEnd"
    assert [text[s.start : s.end].strip() for s in split_sentences(text)] == [
        "Dr. No came (e.g. by boat).",
        'He said: "Go!"',
        "Then 3.5 hours passed... and he left.",
        "今日は。",
        "明日。",
        "A heading",
        "End",
    ]


def test_whole_sentences_are_packed_and_repeated() -> None:
    text = "One is here. Two is there. Three is gone. Four is back."
    spec = ChunkSpec(by="sentences", size=30)
    assert chunks(spec, text) == ["One is here. Two is there.", "Three is gone. Four is back."]
    spec = ChunkSpec(by="sentences", size=60, overlap=15)
    assert chunks(spec, text + " Five.") == [
        "One is here. Two is there. Three is gone. Four is back.",
        "Four is back. Five.",
    ]


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    assert chunks(ChunkSpec(by="sentences", size=16), "One two three four. Five.") == ["One two three", "four. Five."]


_MARKDOWN = """Before.

# Title

Intro.

## First ##

```
# no heading
```

Second
------

Text.

# Other
"""


def test_sections_of_markdown_carry_their_path() -> None:
    outcome = run(ChunkSpec(by="headings", size=100), _MARKDOWN, format="md")
    documents = list(to_documents(outcome.batch))
    assert [(d.text.split("\n")[0], d.tags.get("headings")) for d in documents] == [
        ("Before.", None),
        ("# Title", "Title"),
        ("## First ##", "Title > First"),
        ("Second", "Title > Second"),
        ("# Other", "Other"),
    ]


def test_sections_of_restructuredtext_have_the_levels_they_first_occur_in() -> None:
    text = (
        "=====\nTitle\n=====\n\nOne\n===\n\nText.\n\nSub\n---\n\nTwo\n===\n\n"
        "A table\n\n====  ====\nHead  Line\n====  ====\na     b\n====  ====\n"
    )
    assert [path for _, _, path in find_sections(text, "rst")] == [
        "Title",
        "Title > One",
        "Title > One > Sub",
        "Title > Two",
    ]


def test_what_was_read_from_restructuredtext_may_be_written_in_either_form() -> None:
    assert [path for _, _, path in find_sections("# One\n\n## Two\n\nTable\n=====\n", "rst")] == [
        "One",
        "One > Two",
        "Table",
    ]
    assert [path for _, _, path in find_sections("One\n~~~\n\nTwo\n^^^\n", "txt")] == ["One", "One > Two"]
    assert [path for _, _, path in find_sections("One\n~~~\n\nTwo\n^^^\n", "md")] == [""]


@given(st.text(st.sampled_from(list("#=-`~ \naB\r"))), st.sampled_from(["md", "rst"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_sections_together_are_the_text(text: str, form: str) -> None:
    assert "".join(text[start:end] for start, end, _ in find_sections(text, form)) == text


def test_small_sections_join_and_large_ones_are_cut_under_the_same_heading() -> None:
    text = "# A\n\nShort.\n\n# B\n\nOne is here. Two is there. Three is gone.\n"
    outcome = run(ChunkSpec(by="headings", size=32, min_size=12), text, format="md")
    assert [(d.text, d.tags["headings"]) for d in to_documents(outcome.batch)] == [
        ("# A\n\nShort.", "A"),
        ("# B\n\nOne is here. Two is there.", "B"),
        ("Three is gone.", "B"),
    ]
    joined = run(ChunkSpec(by="headings", size=80, min_size=40), text, format="md")
    assert joined.batch.column("text").to_pylist() == [text.strip()]


@pytest.mark.parametrize(
    "wrong", [{"size": 8}, {"size": 40, "overlap": 11}, {"size": 40, "min_size": 21}, {"by": "tokens"}, {"by": "lines"}]
)
def test_parameters_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChunkSpec.model_validate(wrong)


# By tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["one two three four five six seven eight nine ten"], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("by", ["tokens", "sentences", "headings"])
def test_chunks_by_tokens_hold_no_more_tokens_than_asked_and_little_less(by: str, tokenizer: Path) -> None:
    text = " ".join(f"Number {n} is one two three, four." for n in range(60)) + "x" * 200
    spec = ChunkSpec.model_validate({"by": by, "size": 64, "tokenizer": tokenizer.name})
    batch = to_batch([Document("d", text, _SPAN)])
    found = prepare(spec, tokenizer.parent).apply(batch).batch.column("text").to_pylist()
    reference = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    counts = [len(reference.encode(chunk).ids) for chunk in found]
    assert max(counts) <= 64 and sum(counts) / len(counts) > 44
    assert "".join(found).replace(" ", "") == text.replace(" ", "")


def test_token_ids_are_those_of_the_tokenizer_itself(tokenizer: Path) -> None:
    texts = ["one two", "", "漢字 and more\n\n  x"]
    ids = tokenise(pa.array(texts, pa.large_string()), tokenizer)
    reference = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    assert ids.to_pylist() == [reference.encode(text, add_special_tokens=False).ids for text in texts]
    assert ids.type == pa.large_list(pa.int32())


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        prepare(ChunkSpec(by="tokens", tokenizer="nowhere"), tmp_path)
