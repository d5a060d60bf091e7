"""Ids that rows of one corpus share, whatever shards they fell into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.types import Document, Span
from espalier.data.clean import ids as module
from espalier.data.clean.ids import Ids, IdsSpec
from espalier.data.flow.batch import tag_column, to_batch
from espalier.data.flow.outcome import Outcome, apply_outcome

Shard = Sequence[str | None]


def make_shards(*shards: Shard) -> list[pa.RecordBatch]:
    out = []
    for number, names in enumerate(shards):
        documents = [
            Document(f"{number}.{row}", "text", Span("b", f"{number}.jsonl"), {"id": name, "line": str(row)})
            if name is not None
            else Document(f"{number}.{row}", "text", Span("b", f"{number}.jsonl"), {"line": str(row)})
            for row, name in enumerate(names, 1)
        ]
        out.append(to_batch(documents))
    return out


def run(shards: list[pa.RecordBatch], **spec: Any) -> tuple[list[Outcome], list[list[str | None]]]:
    step = Ids(IdsSpec(**spec))
    sketches = [step.sketch(batch) for batch in shards]
    decisions = list(step.decide(sketches, shards, Path("nowhere"), map))  # type: ignore[arg-type]
    outcomes = [step.apply_decision(batch, made) for batch, made in zip(shards, decisions, strict=True)]
    after = [apply_outcome(batch, outcome) for batch, outcome in zip(shards, outcomes, strict=True)]
    return outcomes, [tag_column(batch, "id").to_pylist() for batch in after]


def test_the_second_row_of_an_id_gets_one_of_its_own_and_is_reported_with_both_places() -> None:
    outcomes, names = run(make_shards(["a", "b"], ["c", "a", None], ["a"]))
    assert names == [["a", "b"], ["c", "a~2", None], ["a~3"]]
    assert [outcome.counts for outcome in outcomes] == [{}, {"duplicate id repaired": 1}, {"duplicate id repaired": 1}]
    (problem,) = outcomes[1].problems
    assert (problem["uri"], problem["line"]) == ("1.jsonl", 2) and problem["message"] == "the id of 0.jsonl:1"


def test_an_id_is_not_made_that_another_row_has() -> None:
    assert run(make_shards(["a", "a~2"], ["a", "a", "a~3~x"]))[1] == [["a", "a~2"], ["a~3", "a~4", "a~3~x"]]


def test_duplicates_may_be_left_out_with_the_reason() -> None:
    outcomes, names = run(make_shards(["a"], ["b", "a"]), duplicates="skip")
    assert names == [["a"], ["b"]]
    assert outcomes[1].reasons is not None
    assert outcomes[1].reasons.to_pylist() == [None, "duplicate id: that of 0.jsonl:1"]


def test_duplicates_may_stop_the_build_at_the_first() -> None:
    with pytest.raises(InvalidInput, match=r"the id of 0\.jsonl:1") as refusal:
        run(make_shards(["a"], ["b", "a"]), duplicates="refuse")
    assert refusal.value.where == "1.jsonl:2"


def test_rows_whose_hashes_meet_but_whose_ids_differ_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.xxhash, "xxh3_64_intdigest", lambda data: len(data))
    outcomes, names = run(make_shards(["a", "b", "cc"], ["b"]))
    assert names[0] == ["a", "b", "cc"] and names[1][0].startswith("b~")  # type: ignore[union-attr]
    assert not outcomes[0].problems


@given(st.lists(st.lists(st.sampled_from(["a", "b", "a~2", "b~2", "c", None]), max_size=6), min_size=1, max_size=4))
def test_after_repair_every_id_is_one_rows_only(shards: list[list[str | None]]) -> None:
    batches = make_shards(*(names for names in shards if names)) or make_shards(["x"])
    _, after = run(batches)
    named = [name for names in after for name in names if name is not None]
    assert len(set(named)) == len(named)
    before = [name for names in shards for name in names if name is not None]
    assert set(before) <= set(named) or not before
