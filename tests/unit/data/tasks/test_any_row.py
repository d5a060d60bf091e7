"""Whatever stands in a row or a document, a task makes an example of it or says why not; it never fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from espalier.core.types import Document, Span
from espalier.data.flow.batch import set_column, to_batch
from espalier.data.flow.outcome import apply_outcome
from espalier.data.tasks.specs import TaskSpec, list_specs
from espalier.data.tasks.task import prepare_task

SPECS: list[dict[str, Any]] = [
    *({"kind": kind} for kind in list_specs() if kind != "extraction"),
    {"kind": "text", "text": "text"},
    {"kind": "completion", "prompt": "{{ a }}{{ text[0] }}", "completion": "a.0.b", "tags": ["id"], "group": "text"},
    {"kind": "completion", "prompt": "{% for x in messages %}{{ x.content }}{% endfor %}", "completion": "text"},
    {"kind": "code", "style": "docstring", "min_lines": 1},
    {"kind": "code", "style": "fill", "min_lines": 1},
    {
        "kind": "preference",
        "format": "preference",
        "columns": {"prompt": "{{ a }}", "chosen": "text", "rejected": "id"},
    },
]
NAMES = [
    "text",
    "label",
    "messages",
    "conversations",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "question",
    "answer",
]
NAMES += ["instruction", "output", "context", "system", "history", "schemaVersion", "role", "content", "from", "value"]
WORDS = ["user", "assistant", "human", "gpt", "Anna: hi\nBob: ho", "bedrock-conversation-2024", "\ud800", "\x00", " "]
WORDS += ['def f():\n    """D."""\n    return 1\n', "def f():\n  '''D'''; x = 1\n\r  y = '\\\n'\n"]
TEXTS = st.sampled_from(WORDS) | st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "a", "id"]), inner, max_size=3)
    ),
    max_leaves=12,
)
ROWS = st.dictionaries(st.sampled_from([*NAMES, "a", "id"]), VALUES, max_size=6) | VALUES
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(str(spec.get(key, "")) for key in ("kind", "style")))
@given(rows=st.lists(ROWS, max_size=4), texts=st.lists(UNICODE | st.sampled_from(WORDS[9:]), max_size=2))
@example(rows=[{"text": "\ud800", "label": "x", "a": [{"b": "\udc00"}]}, {"messages": "\ud800\udc00"}], texts=[])
@settings(max_examples=60)
def test_every_row_is_an_example_or_left_out_with_a_reason(
    spec: dict[str, Any], rows: list[Any], texts: list[str]
) -> None:
    task = prepare_task(TypeAdapter(TaskSpec).validate_python(spec), Path())
    documents = [Document(f"r.{n}", "", Span("0", "a.jsonl"), {"line": str(n)}) for n in range(len(rows))]
    documents += [Document(f"d.{n}", text, Span("1", "a.py")) for n, text in enumerate(texts)]
    fields = pa.array([*map(json.dumps, rows), *[""] * len(texts)], pa.large_string())
    batch = set_column(to_batch(documents), "row", fields)
    outcome = task.parse(batch)
    dropped = 0 if outcome.reasons is None else len(outcome.reasons) - outcome.reasons.null_count
    left = apply_outcome(batch, outcome)
    given_by = len(left) if outcome.parents is None else len(set(outcome.parents.to_pylist()))
    assert given_by + dropped == len(batch)
    assert len(task.make_examples(left)) == len(left)
