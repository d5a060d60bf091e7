"""Generation with real parts: endpoints over HTTP, a base in this process, Ctrl-C, and what stands in the version."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message
from espalier.data.flow.batch import SPAN, TAGS
from espalier.data.generate.dataset import ANSWERS, PROVENANCE, read_passages, write_generated
from espalier.data.generate.row import kept_examples
from espalier.data.generate.spec import GenerateSpec
from espalier.data.layout import read_documents, read_exclusions
from espalier.data.manifest import read_manifest
from espalier.prompts.template import make_prompt
from espalier.services.generation import Generated, generate_from
from espalier.store.examples import read_examples, write_examples
from espalier.testing.endpoint import Say, serve_script
from espalier.testing.tiny import make_tiny_base

PASSAGE = "The Larkspur office opens at nine o'clock and closes at half past five, on every working day of the year."


def spec(url: str, **fields: Any) -> GenerateSpec:
    model = {"endpoint": url, "model": "scripted", "pause_s": 0.01}
    return GenerateSpec.model_validate({"model": model, "method": {"kind": "questions", "near": 1.0}, **fields})


def passages(count: int) -> list[Example]:
    return [Example(f"p{i}", text=f"{PASSAGE} Room {i}.", documents=[f"d{i}"]) for i in range(count)]


def one_pair(call: dict[str, Any], before: int = 0) -> Say:
    room = call["messages"][1]["content"].split("Room ")[1].split(".")[0]
    pair = {"question": f"Is room {room} there?", "answer": "Yes.", "quote": f"room {room}"}
    return Say(json.dumps({"pairs": [pair]}))


def judged(call: dict[str, Any], before: int) -> Say:
    if "Rubric" not in call["messages"][1]["content"]:
        return one_pair(call)
    even = "room 0" in call["messages"][1]["content"].split("The material:")[1]
    return Say(json.dumps({"score": 5 if even else 1, "reason": "as asked"}))


def test_a_version_holds_rows_refusals_provenance_and_raw_answers(tmp_path: Path) -> None:
    source = tmp_path / "source"
    examples = passages(2)
    write_examples(source / "data" / "train-00000.parquet", examples)
    made = tmp_path / "made"
    with serve_script(judged) as server:
        recipe = spec(server.url, judge={"rubric": "be right"}, name="made", licence="CC0-1.0")
        found = generate_from(examples, recipe, tmp_path / "journal.jsonl")
    write_generated(made, (source, "f" * 64), examples, found.rows, found.answers, recipe)
    (kept,) = read_examples(made)
    assert kept.messages == [Message("user", "Is room 0 there?"), Message("assistant", "Yes.")]
    assert kept.tags["generate.prompt"] == "generate-questions@v1"
    assert kept.tags["judge.score"] == "5"
    (left,) = read_exclusions(made)
    assert (left["uri"], left["step"], left["reason"]) == (
        "example:p1", "generate@1", "judged below 4: 1 of 5, as asked",
    )  # fmt: skip
    assert "Is room 1 there?" in left["text"]
    rows = [json.loads(line) for line in (made / PROVENANCE).read_text("utf-8").splitlines()]
    assert [(row["parents"], row["verdict"]) for row in rows] == [(["p0"], "kept"), (["p1"], "refused")]
    answers = {row["sha256"]: row for row in map(json.loads, (made / ANSWERS).read_text("utf-8").splitlines())}
    assert {row["answer"] for row in rows} <= set(answers)
    assert kept.tags["judge.answer"] in answers
    manifest = read_manifest(made)
    assert (manifest.examples, manifest.drops, manifest.licence) == (1, {"judged below 4": 1}, "CC0-1.0")
    assert manifest.steps[0].parameters["judge"]["rubric"] == "be right"


def test_passages_may_be_the_documents_of_a_version(tmp_path: Path) -> None:
    documents = pa.schema(
        [("id", pa.string()), ("text", pa.large_string()), ("spans", pa.list_(SPAN)), ("tags", TAGS),
         ("group", pa.string()), ("split", pa.string())]
    )  # fmt: skip
    span = {"blob": "b", "uri": "house.md", "page": 1, "start": 0, "end": 9}
    row = {"id": "d1", "text": f"{PASSAGE} Room 7.", "spans": [span], "tags": [], "group": "g", "split": "test"}
    pq.write_table(pa.Table.from_pylist([row], documents), tmp_path / "documents-00000.parquet")
    examples = [Example("e1", [Message("user", "?")], split="test", documents=["d1"], tags={"group": "g"})]
    write_examples(tmp_path / "data" / "test-00000.parquet", examples)
    parents = read_passages(tmp_path, examples)
    assert [(each.id, each.split, each.tags) for each in parents] == [("d1", "test", {"group": "g"})]
    with serve_script(one_pair) as server:
        method = {"kind": "questions", "passages": "documents"}
        recipe = spec(server.url, splits=["test"], method=method, licence="CC0-1.0")
        found = generate_from(parents, recipe, tmp_path / "answers.jsonl")
    write_generated(tmp_path / "made", (tmp_path, "f" * 64), examples, found.rows, found.answers, recipe)
    (made,) = read_examples(tmp_path / "made")
    (document,) = read_documents(tmp_path / "made", made.documents)
    assert (made.split, document.span.uri, document.text) == ("test", "house.md", f"{PASSAGE} Room 7.")
    # And a version made of that one has its documents and its terms of use, unless others are named.
    write_generated(tmp_path / "again", (tmp_path / "made", "e" * 64), [made], found.rows, {}, spec(server.url))
    assert [each.text for each in read_documents(tmp_path / "again")] == [document.text]
    assert read_manifest(tmp_path / "again").licence == "CC0-1.0"


def test_a_prompt_of_ones_own_is_asked_and_named(tmp_path: Path) -> None:
    own = make_prompt("house-questions", "{{ count }} Fragen zu: {{ passage }}")
    with serve_script(lambda call, before: one_pair({"messages": [{}, call["messages"][0]]})) as server:
        found = generate_from(passages(1), spec(server.url), tmp_path / "a.jsonl", prompt=own)
        assert server.requests[0]["messages"][0]["content"].startswith("3 Fragen zu: The Larkspur")
    (kept,) = kept_examples(found.rows)
    assert kept.tags["generate.prompt_digest"] == own.digest
    wrong = make_prompt("wrong", "{{ pasage }}")
    with serve_script(one_pair) as server, pytest.raises(InvalidInput, match="no value for pasage"):
        generate_from(passages(1), spec(server.url), tmp_path / "b.jsonl", prompt=wrong)


def test_ctrl_c_ends_at_once_and_keeps_what_was_answered(tmp_path: Path) -> None:
    def script(call: dict[str, Any], before: int) -> Say:
        said = one_pair(call)
        return Say(said.text, delay_s=60 if "Room 3." in call["messages"][1]["content"] and not before else 0)

    journal = tmp_path / "answers.jsonl"
    with serve_script(script) as server:
        recipe = spec(server.url, model={"endpoint": server.url, "model": "scripted", "concurrency": 1})

        def interrupt() -> None:
            while server.count("Room 3.") == 0:
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            generate_from(passages(6), recipe, journal)
        assert len(journal.read_text("utf-8").splitlines()) == 3
        found = generate_from(passages(6), recipe, journal)
        assert [server.count(f"Room {i}.") for i in range(6)] == [1, 1, 1, 2, 1, 1]
    assert sum(row.kept for row in found.rows) == 6


@pytest.mark.slow
def test_a_base_on_this_machine_answers_and_refuses_only_what_is_too_long_for_it(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "tiny", context_tokens=1024)
    examples = [
        Example("a", [Message("user", "Where is it?"), Message("assistant", "Here.")]),
        Example("b", [Message("user", "Where? " * 2000), Message("assistant", "Here.")]),
    ]

    def generate(name: str) -> Generated:
        recipe = GenerateSpec.model_validate(
            {"model": {"base": f"path:{base}"}, "method": {"kind": "paraphrase"}, "keep_input": True,
             "sampling": {"max_tokens": 8, "temperature": 0.7, "seed": 1}}
        )  # fmt: skip
        return generate_from(examples, recipe, tmp_path / name)

    rows = generate("one.jsonl").rows
    assert rows[0].origin.answer and rows[0].refused_because
    assert rows[1].refused_because.startswith("refused by the model: ")
    assert [row.to_json() for row in generate("other.jsonl").rows] == [row.to_json() for row in rows]
