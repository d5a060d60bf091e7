"""Boilerplate over batches: the same lines as by comparing all documents in memory, in any cut of the corpus."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.types import Document, Span
from espalier.data.clean import boilerplate, edges
from espalier.data.clean.boilerplate import BoilerplateSpec, prepare
from espalier.data.flow.batch import to_batch
from espalier.data.flow.outcome import apply_outcome
from espalier.data.flow.spread import run_here

# An independent reference: all pages in memory, lines as texts


def peel_all(texts: list[tuple[str, str]], spec: BoilerplateSpec) -> tuple[list[str], int]:
    common: dict[str, frozenset[str]] = {}
    for form in {form for _, form in texts}:
        common[form] = refer_common([text for text, other in texts if other == form], spec)
    out = []
    for text, form in texts:
        pages = []
        for page in text.split("\f"):
            lines = page.split("\n")
            start, end = edges_of(lines, common[form], spec.edge_lines)
            pages.append("\n".join(lines[start:end]))
        out.append("\n".join(page for page in pages if page) or text)
    return out, sum(map(len, common.values()))


def refer_common(texts: list[str], spec: BoilerplateSpec) -> frozenset[str]:
    enough = max(spec.min_documents, math.ceil(spec.min_share * len(texts)))
    documents = [[[line.strip() for line in page.split("\n")] for page in text.split("\f")] for text in texts]
    holding = Counter(line for document in documents for line in {line for page in document for line in page})
    common: frozenset[str] = frozenset()
    for _ in range(spec.edge_lines):
        at_edge: dict[str, set[int]] = defaultdict(set)
        for number, document in enumerate(documents):
            for page in document:
                start, end = edges_of(page, common, spec.edge_lines)
                for line in {*page[start : start + 1], *page[max(start, end - 1) : end]}:
                    at_edge[line].add(number)
        found = {
            line
            for line, where in at_edge.items()
            if len(where) >= max(enough, spec.min_edge * holding[line])
            and len(line) >= spec.min_chars
            and re.search(r"\w", line)
            and not re.fullmatch(r"[\w#][\w .#/-]{0,30}: .*", line)
        }
        if found <= common:
            break
        common |= found
    return common


def edges_of(lines: list[str], common: frozenset[str], most: int) -> tuple[int, int]:
    start, end = 0, len(lines)
    peeled = 0
    while start < end and (not lines[start].strip() or (peeled < most and goes(lines[start], common))):
        peeled += bool(lines[start].strip())
        start += 1
    peeled = 0
    while end > start and (not lines[end - 1].strip() or (peeled < most and goes(lines[end - 1], common))):
        peeled += bool(lines[end - 1].strip())
        end -= 1
    return start, end


def goes(line: str, common: frozenset[str]) -> bool:
    line = line.strip()
    number = r"(page|seite|p\.|pg\.)? ?-? ?\d{1,4}( ?(of|/|von) ?\d{1,4})? ?-?"
    return line in common or not re.search(r"\w", line) or bool(re.fullmatch(number, line, re.IGNORECASE))


def survey(texts: list[tuple[str, str]], spec: BoilerplateSpec, cut: int) -> tuple[list[str], int]:
    documents = [Document(f"d{n}", text, Span("0" * 64, "u"), {"format": form}) for n, (text, form) in enumerate(texts)]
    batch = to_batch(documents)
    shards = [batch.slice(0, cut), batch.slice(cut)]
    step = prepare(spec, Path())
    decisions = list(step.decide([step.sketch(shard) for shard in shards], shards, Path(), run_here))
    outcomes = [step.apply_decision(shard, decision) for shard, decision in zip(shards, decisions, strict=True)]
    made = [apply_outcome(shard, outcome) for shard, outcome in zip(shards, outcomes, strict=True)]
    found = [text for shard in made for text in shard.column("text").to_pylist()]
    return found, sum(outcome.counts["lines"] for outcome in outcomes)


_LINES = st.sampled_from(
    [
        "A footer of the company",
        "Another footer, below",
        "Page 1 of 2",
        "- 3 -",
        "----",
        "",
        " ",
        "Name: value of a field",
        "short",
        "What is told here, once",
        "And what is told there",
        "A header of the company  ",
    ]
)
_PAGES = st.lists(_LINES, max_size=7).map("\n".join)
_DOCUMENTS = st.tuples(st.lists(_PAGES, min_size=1, max_size=3).map("\f".join), st.sampled_from(["pdf", "pdf", "eml"]))


@given(st.lists(_DOCUMENTS, max_size=14), st.integers(0, 14), st.integers(1, 4), st.floats(0.1, 1))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_survey_gives_what_comparing_all_documents_gives(
    texts: list[tuple[str, str]], cut: int, edge_lines: int, min_edge: float
) -> None:
    spec = BoilerplateSpec(min_documents=2, min_share=0.3, min_edge=min_edge, edge_lines=edge_lines)
    assert survey(texts, spec, cut) == peel_all(texts, spec)


def test_what_is_kept_of_a_page_does_not_grow_with_its_text() -> None:
    step = prepare(BoilerplateSpec(), Path())
    texts = ["\n".join(f"line number {n} of it" for n in range(lines)) for lines in (100, 10_000)]
    sizes = [step.sketch(to_batch([Document("d", text, Span("0" * 64, "u"))])).nbytes for text in texts]
    assert sizes[0] == sizes[1] < 300


def test_lines_that_share_a_bucket_are_told_apart(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(edges, "_BUCKETS", 1)
    texts = [(f"Told of number {n}, at length\nA footer of the company", "pdf") for n in range(9)]
    found, lines = survey(texts, BoilerplateSpec(), 4)
    assert lines == 1 and found == [text.split("\n")[0] for text, _ in texts]


def test_the_corpus_is_read_again_only_where_there_are_candidates() -> None:
    class Unreadable(list[pa.RecordBatch]):
        def __getitem__(self, shard: object) -> pa.RecordBatch:  # type: ignore[override]
            raise AssertionError("read")

    batch = to_batch([Document(f"d{n}", f"A text of number {n}", Span("0" * 64, "u")) for n in range(20)])
    step = prepare(BoilerplateSpec(), Path())
    [decision] = step.decide([step.sketch(batch)], Unreadable([batch]), Path(), run_here)
    assert len(decision) == 0


def test_a_line_is_hashed_with_its_format() -> None:
    found = {boilerplate.hash_line(form, line) for form, line in [("a", "b"), ("", "ab"), ("ab", ""), ("a", "")]}
    assert len(found) == 4 and min(found) > edges.CONTENT and np.uint64(max(found)) > 0
