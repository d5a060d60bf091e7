from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from espalier.core.errors import Conflict, InvalidInput, NotFound
from espalier.core.types import Example, Message
from espalier.data.exchange.export import export_dataset, guess_format
from espalier.data.exchange.inspect import inspect_source
from espalier.data.formats.format import decode_row
from espalier.store.examples import write_examples


def exchange(question: str, answer: str, weight: float | None = None) -> list[Message]:
    return [Message("user", question), Message("assistant", answer, weight)]


def write_version(folder: Path, **splits: list[Example]) -> Path:
    for split in ("train", "validation", "test"):
        examples = splits.get(split, [])
        for example in examples:
            example.split = split  # type: ignore[assignment]
        write_examples(folder / "data" / f"{split}-00000.parquet", examples)
    (folder / "manifest.json").write_text(
        json.dumps({"name": "support", "licence": "CC-BY-4.0", "description": "Tickets."})
    )
    return folder


@pytest.fixture
def version(tmp_path: Path) -> Path:
    train = [Example(f"ex_{n}", exchange(f'question {n}, "quoted"\nin two lines', f"answer {n}")) for n in range(700)]
    train.append(Example("ex_w", exchange("q", "a", 0.5)))
    train.append(Example("ex_m", [Message("system", "s"), *exchange("1", "2"), *exchange("3", "4")]))
    return write_version(tmp_path / "version", train=train, test=[Example("ex_t", exchange("tq", "ta"))])


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_split_is_a_file_that_says_what_the_examples_say(version: Path, tmp_path: Path) -> None:
    report = export_dataset(version, tmp_path / "out")
    assert report.format == "openai-chat" and report.files == ("train.jsonl", "test.jsonl") and not report.refused
    assert report.examples == {"train": 702, "test": 1}
    rows = read_jsonl(tmp_path / "out" / "train.jsonl")
    assert decode_row(rows[3], "openai-chat").messages == exchange('question 3, "quoted"\nin two lines', "answer 3")
    assert rows[700]["messages"][1] == {"role": "assistant", "content": "a", "weight": 0.5}


def test_what_the_format_cannot_hold_is_listed_with_its_reason(version: Path, tmp_path: Path) -> None:
    report = export_dataset(version, tmp_path / "out", format="question-answer", splits=("train",))
    assert report.examples == {"train": 700} and sum(report.refused.values()) == 2
    refused = read_jsonl(tmp_path / "out" / "refused.jsonl")
    assert [row["id"] for row in refused] == ["ex_w", "ex_m"]
    assert refused[0]["reason"] == "turn 2 has the weight 0.5, which question-answer cannot hold"
    assert "refused.jsonl" in report.to_text() and "refused.jsonl" in report.files


def test_a_csv_reads_back_with_python_s_own_reader(version: Path, tmp_path: Path) -> None:
    export_dataset(version, tmp_path / "out", format="alpaca", container="csv")
    with (tmp_path / "out" / "train.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 700 and rows[1]["instruction"] == 'question 1, "quoted"\nin two lines'
    assert decode_row(rows[1], "alpaca").messages[-1] == Message("assistant", "answer 1")
    (refused, several) = read_jsonl(tmp_path / "out" / "refused.jsonl")
    assert "weight" in refused["reason"] and "several turns" in several["reason"]


def test_a_csv_of_conversations_is_refused_before_anything_is_written(version: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a CSV file cannot hold sharegpt: `conversations` is a list"):
        export_dataset(version, tmp_path / "out", format="sharegpt", container="csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["openai-chat", "sharegpt", "alpaca", "bedrock-conversation", "completion"])
def test_parquet_holds_the_same_rows_as_json_lines(version: Path, tmp_path: Path, name: str) -> None:
    export_dataset(version, tmp_path / "lines", format=name)
    export_dataset(version, tmp_path / "columns", format=name, container="parquet")
    lines = [decode_row(row, name) for row in read_jsonl(tmp_path / "lines" / "train.jsonl")]
    columns = pq.read_table(tmp_path / "columns" / "train.parquet").to_pylist()
    assert [decode_row(row, name) for row in columns] == lines


def test_pairs_are_one_type_of_column_whatever_their_rows_are(tmp_path: Path) -> None:
    question, good, bad = Message("user", "q"), [Message("assistant", "a")], [Message("assistant", "b")]
    short = Example("1", [question], chosen=good, rejected=bad)
    long = Example("2", [Message("system", "s"), question], chosen=good, rejected=bad)
    version = write_version(tmp_path / "version", train=[short, long])
    assert guess_format(version) == "preference"
    export_dataset(version, tmp_path / "out", container="parquet")
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    decoded = [decode_row(row, "preference") for row in rows]
    assert [(each.messages, each.chosen, each.rejected) for each in decoded] == [
        (each.messages, each.chosen, each.rejected) for each in (short, long)
    ]
    report = export_dataset(version, tmp_path / "table", container="csv")
    assert report.examples == {"train": 1} and sum(report.refused.values()) == 1


def test_a_hugging_face_folder_says_which_file_is_which_split(version: Path, tmp_path: Path) -> None:
    report = export_dataset(version, tmp_path / "out", container="hf")
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    matter = YAML(typ="safe").load(front)
    assert matter["license"] == "cc-by-4.0" and matter["size_categories"] == ["n<1K"]
    (config,) = matter["configs"]
    files = {item["split"]: item["path"] for item in config["data_files"]}
    counts = {item["name"]: item["num_examples"] for item in matter["dataset_info"]["splits"]}
    assert counts == report.examples == {"train": 702, "test": 1}
    assert {split: pq.read_metadata(tmp_path / "out" / path).num_rows for split, path in files.items()} == counts
    assert body.startswith("\n# support\n\nTickets.") and "Licence: CC-BY-4.0" in body


@pytest.mark.parametrize(
    ("licence", "named"),
    [("MIT", "mit"), ("MIT AND CC-BY-4.0", ["mit", "cc-by-4.0"]), ("public domain", "other"), ("", None)],
)
def test_the_card_names_licences_as_the_hub_does_and_whom_to_credit(
    tmp_path: Path, licence: str, named: str | list[str] | None
) -> None:
    version = write_version(tmp_path / "version", train=[Example("1", exchange("q", "a"))])
    credit = {"x": {"statement": "MIT", "attribution": "Copyright (c) Somebody"}}
    (version / "manifest.json").write_text(json.dumps({"name": "n", "licence": licence, "licences": credit}))
    export_dataset(version, tmp_path / "out", container="hf")
    _, front, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    matter = YAML(typ="safe").load(front)
    assert matter.get("license") == named and (matter.get("license_name") == licence) == (named == "other")
    assert "- x: MIT; Copyright (c) Somebody" in body


def test_the_same_version_gives_the_same_bytes(version: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_dataset(version, tmp_path / name, container="hf")
    first, second = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert first == second and len(first) == 3


def test_nothing_is_overwritten_and_nothing_half_written_stays(version: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(Conflict, match="not empty"):
        export_dataset(version, tmp_path / "out")
    with pytest.raises(InvalidInput, match="no example fits kto: no tag `desirable`"):
        export_dataset(version, tmp_path / "none", format="kto")
    assert not list((tmp_path / "none").iterdir())
    with pytest.raises(InvalidInput, match="no format called 'chatml'"):
        export_dataset(version, tmp_path / "other", format="chatml")
    with pytest.raises(NotFound):
        export_dataset(tmp_path / "nowhere", tmp_path / "other")


def test_an_exported_file_is_recognised_again(version: Path, tmp_path: Path) -> None:
    export_dataset(version, tmp_path / "out", format="sharegpt")
    found = inspect_source(tmp_path / "out" / "train.jsonl")
    assert found.detection.format == "sharegpt" and found.detection.confidence == 1.0
    assert "task: {kind: chat, format: sharegpt}" in found.recipe and "100 of 100 rows" in found.to_text()


def test_a_file_of_no_known_format_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "e2e.csv").write_text("mr,ref\na,b\n")
    with pytest.raises(InvalidInput, match="`mr` in 1, `ref` in 1") as refusal:
        inspect_source(tmp_path / "e2e.csv")
    assert refusal.value.where == "e2e.csv"


def test_a_file_without_rows_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{broken\n")
    with pytest.raises(InvalidInput, match=r"no row in it; a\.jsonl:1: .*not JSON"):
        inspect_source(tmp_path / "a.jsonl")
    (tmp_path / "notes.txt").write_text("words\n")
    with pytest.raises(InvalidInput, match=r"no row in it\n"):
        inspect_source(tmp_path / "notes.txt")
    with pytest.raises(NotFound):
        inspect_source(tmp_path / "nowhere")
