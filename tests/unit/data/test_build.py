from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from espalier.core.errors import InvalidInput, NotFound, StorageFull
from espalier.core.events import Event
from espalier.data.build import build_dataset
from espalier.data.layout import read_assignments, read_documents, read_exclusions
from espalier.data.manifest import read_manifest
from espalier.data.spec import DataSpec
from espalier.data.synth.tickets.folder import TicketFolder, write_tickets
from espalier.store.disk import new_file
from espalier.store.examples import read_examples

LABELS = {"kind": "extraction", "labels": "backoffice/records.jsonl", "key": r"LK-\d{5}"}
STEPS = [
    {"step": "normalise"},
    {"step": "replies"},
    {"step": "boilerplate", "min_documents": 4},
    {"step": "unwrap"},
    {"step": "redact", "names": "backoffice/contacts.csv"},
    {"step": "length"},
    {"step": "dedup"},
]


def make_spec(**changes: object) -> DataSpec:
    whole = {"name": "support", "source": {"include": ["tickets/*"]}, "steps": STEPS, "task": LABELS}
    return DataSpec.model_validate(whole | changes)


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> TicketFolder:
    return write_tickets(tmp_path_factory.mktemp("tickets"), seed=5, files=60)


@pytest.fixture(scope="module")
def root(tickets: TicketFolder) -> Path:
    return tickets.records.parent.parent


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build_dataset(make_spec(), folder, source=root)
    return folder


def digest_folder(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_notes(folder: Path, *texts: str) -> None:
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.md").write_text(text)


NOTES = [
    "The pump in hall one makes a grinding noise since Monday.",
    "Nobody can log in to the portal; the account is locked.",
    "The invoice of May shows an amount that we never agreed on.",
]


# The main road


def test_tickets_of_every_format_become_examples_with_the_record_as_answer(tickets: TicketFolder, built: Path) -> None:
    manifest = read_manifest(built)
    records = {ticket.ref: ticket.record for ticket in tickets.tickets}
    examples = list(read_examples(built))
    assert len(examples) == manifest.examples == sum(manifest.splits.values())
    assert set(manifest.formats) == {"pdf", "docx", "html", "eml", "md", "csv"}
    for example in examples:
        user, assistant = example.messages
        ref = example.tags["group"]
        assert (user.role, assistant.role) == ("user", "assistant")
        assert ref in user.content and assistant.content == records[ref]
    assert {example.tags["group"] for example in examples} == set(records)


def test_no_ticket_straddles_splits_and_each_split_has_examples(root: Path, tmp_path: Path) -> None:
    build_dataset(make_spec(split={"test": 0.2, "validation": 0.1}), tmp_path, source=root)
    splits: dict[str, set[str]] = {}
    for example in read_examples(tmp_path):
        splits.setdefault(example.tags["group"], set()).add(example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "validation", "test"}


def test_copies_are_left_out_and_said_to_be(built: Path) -> None:
    manifest = read_manifest(built)
    copies = [item for item in manifest.skipped if item.reason.startswith("same bytes as")]
    assert copies and manifest.drops["near duplicate"] >= 1
    lines = list(read_exclusions(built))
    assert Counter(line["reason"].startswith("same bytes") for line in lines)[True] == len(copies)
    near = [line for line in lines if line["step"] == "dedup@2"]
    assert len(near) == manifest.drops["near duplicate"]
    assert all("Jaccard" in line["reason"] and line["uri"] and line["blob"] and line["text"] for line in near)


def test_an_example_leads_back_to_the_page_of_the_file_it_came_from(built: Path, root: Path) -> None:
    example = next(e for e in read_examples(built) if e.tags.get("pdf.pages") == "2")
    (document,) = read_documents(built, example.documents)
    assert [span.page for span in document.spans] == [1, 2]
    for span in document.spans:
        assert hashlib.sha256((root / span.uri).read_bytes()).hexdigest() == span.blob
    assert document.text == example.messages[0].content


def test_what_stands_around_a_ticket_is_cleaned_away(built: Path) -> None:
    texts = "\n".join(document.text for document in read_documents(built))
    for gone in (
        "may be confidential",
        "All rights reserved",
        "Log out",
        "Page 1 of",
        "Kind regards",
        "rules of filing",
        "] wrote:",
    ):
        assert gone not in texts
    assert "Notes of the service desk" in texts and "@" not in texts


def test_the_manifest_tells_each_step_and_adds_up(built: Path) -> None:
    manifest = read_manifest(built)
    assert [report.step for report in manifest.steps] == [
        "read@2",
        "task:extraction@1",
        *(f"{step['step']}@2" for step in STEPS),
    ]
    for before, after in zip(manifest.steps, manifest.steps[1:], strict=False):
        assert after.documents_in == before.documents_out
        assert after.documents_in - after.documents_out == sum(after.drops.values())
    assert manifest.documents_read - manifest.documents_kept == sum(manifest.drops.values())
    assert manifest.redactions["EMAIL"] > 20 and sum(manifest.labels["verdict@grade"].values()) == manifest.examples
    assert sum(entry.documents for entry in manifest.sources) == manifest.documents_read
    card = (built / "card.md").read_text()
    assert f"{manifest.examples} examples" in card and "near duplicate" in card and "EMAIL" in card


def test_no_personal_data_is_in_any_file_of_the_version(tickets: TicketFolder, built: Path) -> None:
    rows = [e.messages[0].content + e.messages[1].content + str(e.tags) for e in read_examples(built)]
    rows += [document.text + str(document.tags) for document in read_documents(built)]
    rows += [path.read_text() for path in (built / "manifest.json", built / "card.md")]
    rows += [str(line) for line in read_exclusions(built)]
    everything = "\n".join(rows)
    planted = {plant.value for plants in tickets.plants.values() for plant in plants if plant.kind != "name"}
    assert len(planted) > 50 and not [value for value in planted if value in everything]


def test_a_key_that_is_personal_data_is_shown_nowhere(tmp_path: Path) -> None:
    write_notes(tmp_path / "in", *(f"{note} From p{n}@b.example." for n, note in enumerate(NOTES)))
    labels = [{"ref": f"p{n}@b.example", "record": f"<r>p{n}@b.example</r>"} for n in range(2)]
    (tmp_path / "in" / "labels.jsonl").write_text("".join(f"{json.dumps(label)}\n" for label in labels))
    task = {"kind": "extraction", "labels": "labels.jsonl", "key": r"p\d@b\.example"}
    build_dataset(DataSpec.model_validate({"task": task}), tmp_path / "out", source=tmp_path / "in")
    rows = list(read_examples(tmp_path / "out"))
    assert len({e.tags["group"] for e in rows}) == 2 and {e.messages[1].content for e in rows} == {"<r>[EMAIL]</r>"}
    told = "\n".join([*map(str, rows), *map(str, read_exclusions(tmp_path / "out"))])
    assert "has none for key-" in told and "p0@" not in told and "p2@" not in told


# Determinism and growth


def test_the_same_sources_and_recipe_give_the_same_bytes_wherever_they_lie(
    built: Path, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path / "elsewhere")
    build_dataset(make_spec(), tmp_path / "two", source=tmp_path / "elsewhere")
    assert digest_folder(built) == digest_folder(tmp_path / "two")
    assert str(tmp_path) not in (tmp_path / "two" / "manifest.json").read_text()


def test_adding_files_moves_nothing_from_test_to_train(root: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(root, part)
    for path in sorted((part / "tickets" / "csv").iterdir())[1:]:
        path.unlink()
    spec = make_spec(split={"test": 0.3, "validation": 0.2})
    build_dataset(spec, tmp_path / "one", source=part)
    build_dataset(spec, tmp_path / "two", source=root)
    before, after = read_assignments(tmp_path / "one"), read_assignments(tmp_path / "two")
    assert len(after) > len(before) > 20
    assert all(after[group] == "test" for group, split in before.items() if split == "test")


def test_an_earlier_version_can_be_handed_over_to_keep_every_split(built: Path, root: Path, tmp_path: Path) -> None:
    before = read_assignments(built)
    spec = make_spec(split={"test": 0.5, "validation": 0, "salt": "other"})
    build_dataset(spec, tmp_path / "two", source=root, previous=before)
    assert read_assignments(tmp_path / "two") == before


# Other tasks


def test_chat_lines_are_imported_redacted_and_deduplicated(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{note} Mail a@b.example"},
                {"role": "assistant", "content": "To c@d.example."},
            ]
        }
        for note in [*NOTES, NOTES[0]]
    ]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "chat.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    manifest = build_dataset(
        DataSpec.model_validate({"task": {"kind": "chat"}}), tmp_path / "out", source=tmp_path / "chat.jsonl"
    )
    examples = list(read_examples(tmp_path / "out"))
    assert len(examples) == 3 and manifest.drops == {"broken line": 1, "exact duplicate": 1}
    assert all(
        e.messages[0].content.endswith("Mail [EMAIL]") and e.messages[1].content == "To [EMAIL]." for e in examples
    )
    (broken,) = [line["reason"] for line in read_exclusions(tmp_path / "out") if line["step"] == "read@2"]
    assert broken.startswith("broken line: chat.jsonl:5: not JSON")
    (problem,) = map(json.loads, (tmp_path / "out" / "problems.jsonl").read_text().splitlines())
    assert (problem["kind"], problem["line"], problem["action"]) == ("broken_line", 5, "skip")


def test_imported_answers_keep_their_white_space_and_quotes(tmp_path: Path) -> None:
    answer = "def f():\n    return “x”  # two spaces"
    row = {"prompt": "Write a function that returns x, please.", "completion": answer}
    (tmp_path / "code.jsonl").write_text(json.dumps(row) + "\n")
    spec = DataSpec.model_validate({"task": {"kind": "completion"}, "split": {"test": 0, "validation": 0}})
    build_dataset(spec, tmp_path / "out", source=tmp_path / "code.jsonl")
    (example,) = read_examples(tmp_path / "out")
    assert example.messages[-1].content == answer


def test_documents_become_raw_text(tmp_path: Path) -> None:
    write_notes(tmp_path / "in", *NOTES)
    build_dataset(DataSpec.model_validate({"task": {"kind": "text"}}), tmp_path / "out", source=tmp_path / "in")
    assert sorted(e.text for e in read_examples(tmp_path / "out")) == sorted(NOTES)


def test_progress_is_told_in_events(root: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    manifest = build_dataset(make_spec(), tmp_path, source=root, emit=events.append)
    kinds = Counter(event.kind for event in events)
    assert kinds["data.step"] == 1 + len(STEPS) and kinds["data.built"] == 1
    assert [e.data["files"] for e in events if e.kind == "data.read"][-1] == len(manifest.sources)


# What goes wrong


def test_one_corrupt_pdf_among_good_files_is_reported_and_the_rest_is_built(
    built: Path, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path / "in")
    (tmp_path / "in" / "tickets" / "pdf" / "broken.pdf").write_bytes(b"%PDF-1.4 torn off here")
    manifest = build_dataset(make_spec(), tmp_path / "out", source=tmp_path / "in")
    assert manifest.examples == read_manifest(built).examples
    (broken,) = [item for item in manifest.skipped if item.uri.endswith("broken.pdf")]
    assert broken.reason.startswith("unreadable: not a readable PDF")
    assert "broken.pdf" in str(list(read_exclusions(tmp_path / "out")))


def test_an_empty_folder_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidInput, match="nothing to read"):
        build_dataset(DataSpec.model_validate({"task": {"kind": "text"}}), tmp_path / "out", source=tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_examples_too_much_alike_to_be_divided_are_refused_with_what_to_change(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(60))
    write_notes(tmp_path / "in", *(f"{text} {n}" for n in range(9)))
    recipe = {"steps": [{"step": "normalise"}], "task": {"kind": "text"}, "split": {"test": 0.5}}
    with pytest.raises(InvalidInput, match="9 of 9 are tied together") as refusal:
        build_dataset(DataSpec.model_validate(recipe), tmp_path / "out", source=tmp_path / "in")
    assert refusal.value.where == "split.near" and "above 0.7" in refusal.value.hint
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no source is named"):
        build_dataset(DataSpec.model_validate({"task": {"kind": "text"}}), tmp_path / "out")


def test_when_no_example_is_left_the_error_counts_why(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no example is left of") as refusal:
        build_dataset(make_spec(task=LABELS | {"key": "NOPE-[0-9]+"}), tmp_path / "out", source=root)
    assert "no key" in refusal.value.hint and "NOPE" in refusal.value.hint
    assert not (tmp_path / "out").exists()


def test_near_duplicates_that_an_earlier_version_parted_meet_on_the_held_out_side(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(60))
    write_notes(tmp_path / "in", text, text + " and more", *NOTES)
    steps = [{"step": "normalise"}]
    spec = DataSpec.model_validate({"steps": steps, "task": {"kind": "text"}, "split": {"near": 1}})
    build_dataset(spec, tmp_path / "one", source=tmp_path / "in")
    before = read_assignments(tmp_path / "one")
    (group,) = [example.tags["group"] for example in read_examples(tmp_path / "one") if example.text == text]
    parted = {key: "test" if key == group else "train" for key in before}
    strict = DataSpec.model_validate({"steps": steps, "task": {"kind": "text"}})
    manifest = build_dataset(strict, tmp_path / "two", source=tmp_path / "in", previous=parted)
    assert manifest.splits["test"] == 2


def test_a_full_disk_leaves_no_version_behind(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise StorageFull("no space left", hint="free some")

    monkeypatch.setattr("espalier.data.layout.write_file", refuse)
    with pytest.raises(StorageFull):
        build_dataset(make_spec(), tmp_path / "out", source=root)
    with pytest.raises(NotFound, match="no dataset in"):
        read_manifest(tmp_path / "out")


def test_what_a_killed_build_left_half_written_is_no_part_of_the_version(
    built: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in (tmp_path / "card.md", tmp_path / "data" / "train-00000.parquet"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), new_file(target):
            patch.setattr(Path, "unlink", lambda path, missing_ok: None)  # who is killed takes nothing away
            raise KeyboardInterrupt
    assert len(list(tmp_path.rglob(".*"))) == 2
    build_dataset(make_spec(), tmp_path, source=root)
    assert digest_folder(tmp_path) == digest_folder(built)


def test_a_file_error_stops_the_build_when_asked_to(tmp_path: Path) -> None:
    write_notes(tmp_path / "in", *NOTES)
    (tmp_path / "in" / "x.pdf").write_bytes(b"%PDF-1.4 torn")
    spec = DataSpec.model_validate({"source": {"on_error": "fail"}, "task": {"kind": "text"}})
    with pytest.raises(InvalidInput, match="not a readable PDF"):
        build_dataset(spec, tmp_path / "out", source=tmp_path / "in")


def test_a_manifest_of_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "x"}')
    with pytest.raises(InvalidInput, match="not a manifest of layout 1"):
        read_manifest(tmp_path)
