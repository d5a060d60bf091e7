"""The recipes for public datasets, each run on the real material where it is at hand."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from espalier.core.recipefile import load_recipe
from espalier.core.types import Example
from espalier.data.build import build_dataset
from espalier.data.conformance.check import check_dataset
from espalier.data.exchange.export import export_dataset
from espalier.data.manifest import DatasetManifest, read_manifest
from espalier.data.spec import DataSpec
from espalier.store.examples import read_examples

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ("gsm8k", "banking77", "e2e", "self-instruct", "peps")
DATA = RECIPES.parents[1] / "shared" / "data"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")]


def load(name: str) -> DataSpec:
    return load_recipe(RECIPES / f"{name}.yaml", DataSpec).model_copy(update={"workers": 1})


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("versions")
    for name in NAMES:
        build_dataset(load(name), root / name, folder=RECIPES, cache=root / "cache")
    return {name: root / name for name in NAMES}


def examples(folder: Path) -> list[Example]:
    return list(read_examples(folder))


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_an_example_or_left_out_with_a_reason(versions: dict[str, Path], name: str) -> None:
    manifest = read_manifest(versions[name])
    assert manifest.name == name and manifest.examples == sum(manifest.splits.values()) == len(examples(versions[name]))
    assert all(manifest.splits[split] > 0 for split in ("train", "validation", "test"))
    for report in manifest.steps:
        if not report.step.startswith("chunk@"):
            assert report.documents_in - report.documents_out == sum(report.drops.values()), report.step


ROWS = {"gsm8k": 7_473, "banking77": 10_003, "e2e": 46_733, "self-instruct": 427, "peps": 369}
LICENCES = {
    "gsm8k": "MIT",
    "banking77": "CC-BY-4.0",
    "e2e": "CC-BY-SA-4.0",
    "self-instruct": "Apache-2.0",
    "peps": "CC0-1.0",
}


@pytest.mark.parametrize("name", NAMES)
def test_licence_and_attribution_are_carried_from_the_note_beside_the_data(
    versions: dict[str, Path], name: str
) -> None:
    manifest = read_manifest(versions[name])
    (licence,) = manifest.licences.values()
    note = (RECIPES / load(name).source.paths[0] / "SOURCE.md").read_text()
    origin = re.search(r"source: (\S+)", note)
    commit = re.search(r"commit: (\S+)", note)
    assert origin and commit and f"{origin[1]}@{commit[1]}" in licence["attribution"]
    assert manifest.licence == licence["spdx"] == LICENCES[name] and licence["statement"] in note
    assert manifest.documents_read == ROWS[name]
    assert "shared" not in manifest.model_dump_json()


def test_gsm8k_answers_are_worked_solutions(versions: dict[str, Path]) -> None:
    for example in examples(versions["gsm8k"]):
        user, assistant = example.messages
        assert user.role == "user" and re.search(r"\n#### [-\d.,]+$", assistant.content)


def test_banking77_asks_with_all_labels_and_keeps_each_in_every_split(versions: dict[str, Path]) -> None:
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples(versions["banking77"]):
        label = example.tags["label"]
        assert example.messages[-1].content == label and label in example.messages[0].content
        by_split[example.split][label] += 1
    assert len(by_split["train"]) == len(by_split["test"]) == 77


def test_e2e_keeps_all_texts_of_a_record_in_one_split(versions: dict[str, Path]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for example in examples(versions["e2e"]):
        splits[example.messages[0].content].add(example.split)
    assert len(splits) > 5_000 and all(len(found) == 1 for found in splits.values())


def test_self_instruct_puts_the_input_after_the_instruction(versions: dict[str, Path]) -> None:
    found = examples(versions["self-instruct"])
    assert sum("\n\n" in example.messages[0].content for example in found) > 300
    assert all("instances" not in example.messages[0].content for example in found)


def test_proposals_are_cut_at_their_headings_and_hold_no_address(versions: dict[str, Path]) -> None:
    found = examples(versions["peps"])
    headed = [example for example in found if example.tags.get("headings")]
    assert len(headed) > 0.8 * len(found) and len({example.tags["headings"] for example in headed}) > 1_000
    assert read_manifest(versions["peps"]).redactions["EMAIL"] > 500


def test_sections_of_one_proposal_share_a_split(versions: dict[str, Path]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for example in examples(versions["peps"]):
        assert example.text.strip() and not example.messages
        splits[example.id.rsplit(".", 1)[0]].add(example.split)
    assert len(splits) > 360 and all(len(found) == 1 for found in splits.values())


def test_the_same_recipe_gives_the_same_bytes(versions: dict[str, Path], tmp_path: Path) -> None:
    two: DatasetManifest = build_dataset(
        load("self-instruct").model_copy(update={"workers": 2}), tmp_path / "two", folder=RECIPES
    )
    assert two.examples
    for path in sorted(versions["self-instruct"].rglob("*")):
        if path.is_file():
            other = tmp_path / "two" / path.relative_to(versions["self-instruct"])
            assert other.read_bytes() == path.read_bytes(), path.name


def test_a_version_goes_out_as_bedrock_takes_it(versions: dict[str, Path], tmp_path: Path) -> None:
    export_dataset(versions["gsm8k"], tmp_path / "out", format="bedrock-conversation")
    report = check_dataset(tmp_path / "out", "bedrock:nova")
    assert report.accepted and report.records["train"] == read_manifest(versions["gsm8k"]).splits["train"]
