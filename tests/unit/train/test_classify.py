"""Heads trained through the one runner: they learn, repeat themselves, and are refused data they cannot learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.train.conftest import Train, digest_of_adapter

from espalier.core.errors import InvalidInput
from espalier.core.events import Event
from espalier.core.types import Example, Message
from espalier.nn.base import load_base
from espalier.nn.scoring import open_scorer
from espalier.store.examples import write_examples
from espalier.train.heads.labels import weigh_labels
from espalier.train.methods.classify import ClassifySpec
from espalier.train.methods.reward import RewardSpec

WORDS = {"animal": ("fox", "dog", "quick brown fox"), "number": ("12", "0123", "45 67"), "record": ("<record>", "id=")}
QUICK: dict[str, Any] = {"lora": {"rank": 4}, "lr": 1e-2, "pack_tokens": 256, "warmup_steps": 2, "method": "classify"}


def labelled(split: str, copies: int) -> list[Example]:
    return [
        Example(
            f"{split}-{label}-{word}-{n}",
            [Message("user", f"What is this: {word}{'.' * n}"), Message("assistant", label)],
            split=split,  # type: ignore[arg-type]
            tags={"label": label},
        )
        for n in range(copies)
        for label, words in WORDS.items()
        for word in words
    ]


def write(folder: Path, examples: list[Example]) -> Path:
    for split in ("train", "validation"):
        rows = [example for example in examples if example.split == split]
        if rows:
            write_examples(folder / "data" / f"{split}-00000.parquet", rows)
    return folder


@pytest.fixture
def intents(tmp_path: Path) -> Path:
    return write(tmp_path / "intents", labelled("train", 6) + labelled("validation", 2))


@pytest.mark.parametrize("tune", ["lora", "head", "full"])
def test_a_classifier_learns_and_is_read_back(
    train: Train, intents: Path, tiny_base: Path, tmp_path: Path, tune: str
) -> None:
    seen: list[Event] = []
    spec = ClassifySpec.model_validate(
        QUICK | {"tune": tune} | ({"epochs": 20, "lr": 1e-1} if tune == "head" else {"epochs": 4})
    )
    result = train(intents, spec, emit=seen.append)
    looks = [event.data for event in seen if event.kind == "train.eval"]
    assert result.progress.validation_loss is not None and result.progress.validation_loss < 0.7  # log 3 = 1.1

    folder = tmp_path / "a"
    base = load_base(f"path:{folder if tune == 'full' else tiny_base}")
    questions = [example.messages[:-1] for example in labelled("test", 1)]
    found = [one.label for one in open_scorer(base, folder).classify(questions)]
    wanted = [example.tags["label"] for example in labelled("test", 1)]
    right = sum(map(str.__eq__, found, wanted)) / len(wanted)
    assert right >= 0.8
    assert looks[-1]["accuracy"] >= 0.8
    assert json.loads((folder / "espalier.json").read_text())["head"]["labels"] == ["animal", "number", "record"]
    assert result.trained_parameters == 3 * 48 or tune != "head"


def test_the_same_run_gives_the_same_head_and_any_number_of_cores_too(
    train: Train, intents: Path, tmp_path: Path
) -> None:
    spec = ClassifySpec.model_validate(QUICK | {"epochs": 1, "packs_per_step": 3})
    train(intents, spec.model_copy(update={"threads": 1}), name="a")
    train(intents, spec.model_copy(update={"threads": 2}), name="b")
    assert digest_of_adapter(tmp_path / "a") == digest_of_adapter(tmp_path / "b")


def test_the_audit_shows_a_text_and_its_label(train: Train, intents: Path) -> None:
    seen: list[Event] = []
    train(intents, ClassifySpec.model_validate(QUICK | {"steps": 1}), emit=seen.append)
    (audit,) = [event.data for event in seen if event.kind == "train.audit"]
    assert "What is this" in audit["sample"] and "⟦animal⟧" in audit["sample"]


def test_an_example_without_a_tag_is_labelled_by_its_answer(train: Train, tmp_path: Path) -> None:
    rows = labelled("train", 2)
    for row in rows:
        row.tags.clear()
    train(write(tmp_path / "d", rows), ClassifySpec.model_validate(QUICK | {"steps": 1}))
    told = json.loads((tmp_path / "a" / "espalier.json").read_text())
    assert told["head"]["label2id"] == {"animal": 0, "number": 1, "record": 2}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": ["animal", "number"]}, "'record' is not among `labels`"),
        ({"label_weights": {"recrod": 2.0}}, "no label 'recrod'.*\n.*did you mean `record`"),
    ],
)
def test_labels_that_do_not_fit_the_data_are_refused(
    train: Train, intents: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        train(intents, ClassifySpec.model_validate(QUICK | changes))


def test_a_single_label_is_nothing_to_tell_apart(train: Train, tmp_path: Path) -> None:
    rows = [row for row in labelled("train", 2) if row.tags["label"] == "animal"]
    with pytest.raises(InvalidInput, match="only the label 'animal'"):
        train(write(tmp_path / "d", rows), ClassifySpec.model_validate(QUICK))


def test_balanced_weights_make_every_label_count_alike() -> None:
    counts = {"often": 90, "rarely": 10}
    weights = weigh_labels(["often", "rarely"], counts, balance=True, given={"rarely": 2.0})
    assert weights == pytest.approx([100 / 180, 2 * 100 / 20])
    assert 90 * weights[0] == pytest.approx(10 * weights[1] / 2)


def pairs(split: str, count: int) -> list[Example]:
    """The answer with the fox is better."""
    return [
        Example(
            f"{split}-{n}",
            [Message("user", f"Say something {n}")],
            chosen=[Message("assistant", f"A fox {n}")],
            rejected=[Message("assistant", f"A dog {n}")],
            split=split,  # type: ignore[arg-type]
        )
        for n in range(count)
    ]


def test_a_reward_model_learns_which_answer_is_better(train: Train, tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs", pairs("train", 24) + pairs("validation", 6))
    seen: list[Event] = []
    spec = RewardSpec.model_validate(QUICK | {"method": "reward", "epochs": 4, "centering": 0.01})
    train(data, spec, emit=seen.append)
    looks = [event.data for event in seen if event.kind == "train.eval"]
    assert looks[-1]["accuracy"] >= 0.8 and looks[-1]["margin"] > 0.2
    (audit,) = [event.data for event in seen if event.kind == "train.audit"]
    assert "fox 0" in audit["sample"] and "rather than" in audit["sample"]

    scorer = open_scorer(load_base(f"path:{tiny_base}"), tmp_path / "a")
    asked = Message("user", "Say something 99")
    good, poor = scorer.reward([[asked, Message("assistant", text)] for text in ("A fox 99", "A dog 99")])
    assert good > poor


def test_pairs_that_teach_nothing_are_left_out_and_counted(train: Train, tmp_path: Path) -> None:
    rows = pairs("train", 5)
    rows[0].rejected = rows[0].chosen
    rows[1].chosen = [Message("assistant", "long " * 400)]
    seen: list[Event] = []
    train(
        write(tmp_path / "d", rows),
        RewardSpec.model_validate(QUICK | {"method": "reward", "steps": 1}),
        emit=seen.append,
    )
    (audit,) = [event.data for event in seen if event.kind == "train.audit"]
    assert audit["examples"] == 3 and audit["dropped"] == 2


def test_a_pair_may_have_a_margin_of_its_own(train: Train, tmp_path: Path) -> None:
    rows = pairs("train", 4)
    for number, row in enumerate(rows):
        row.tags["lead"] = str(number / 2)
    spec = RewardSpec.model_validate(QUICK | {"method": "reward", "steps": 1, "margin_tag": "lead"})
    train(write(tmp_path / "d", rows), spec)
    rows[3].tags["lead"] = "a lot"
    seen: list[Event] = []
    train(write(tmp_path / "e", rows), spec, name="b", emit=seen.append)
    (audit,) = [event.data for event in seen if event.kind == "train.audit"]
    assert audit["dropped"] == 1
