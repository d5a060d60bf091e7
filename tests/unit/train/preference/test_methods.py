"""dpo, orpo and kto from a dataset's folder to an adapter, through the one runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import log
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from espalier.core.errors import InvalidInput
from espalier.core.events import Event
from espalier.core.types import Example, Message
from espalier.store.examples import write_examples
from espalier.train.corpus import Source
from espalier.train.job import Job, TrainResult
from espalier.train.method import load_method
from espalier.train.methods.dpo import DpoSpec
from espalier.train.methods.kto import KtoSpec, find_imbalance
from espalier.train.methods.orpo import OrpoSpec
from espalier.train.runner import run

from .conftest import make_pairs, make_verdicts


@dataclass(frozen=True)
class Place:
    """Where runs of one test lie."""

    root: Path
    base: Path

    def train(
        self, method: str, examples: Sequence[Example] = (), *, name: str = "run", start: str = "", **fields: Any
    ) -> tuple[TrainResult, list[Event]]:
        """Train on `examples` (the last of all without any), from another run's adapter where `start` names one."""
        if examples:
            for split in ("train", "validation"):
                own = [example for example in examples if example.split == split]
                write_examples(self.root / "dataset" / "data" / f"{split}-00000.parquet", own)
        settings = {"epochs": 4, "pack_tokens": 256, "context_tokens": 256, "lora": {"rank": 4}, **fields}
        spec = load_method(method).spec(base=f"path:{self.base}", **settings)
        events: list[Event] = []
        job = Job(
            method,
            spec,
            (Source("", self.root / "dataset"),),
            self.root / name / "out",
            self.root / name / "state",
            self.root / "cache",
            adapter=self.root / start / "out" if start else None,
        )
        return run(job, events.append), events

    def digest(self, name: str = "run") -> str:
        return sha256((self.root / name / "out" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def place(tmp_path: Path, tiny_base: Path) -> Place:
    return Place(tmp_path, tiny_base)


def _held_out(examples: Sequence[Example], count: int) -> list[Example]:
    """The last `count` as the validation split."""
    return [*examples[:-count], *(replace(example, split="validation") for example in examples[-count:])]


def _of(events: Sequence[Event], kind: str) -> list[dict[str, Any]]:
    return [event.data for event in events if event.kind == kind]


def test_dpo_learns_which_answer_is_better(place: Place) -> None:
    result, events = place.train("dpo", _held_out(make_pairs(46), 6))
    first, last = _of(events, "train.step")[0], _of(events, "train.eval")[-1]
    assert first["loss"] == pytest.approx(log(2), rel=1e-3)  # nothing has moved
    assert first["margin"] == pytest.approx(0, abs=1e-3)
    assert last["accuracy"] == 1.0
    assert last["margin"] > 1.0
    assert last["reward_chosen"] > last["reward_rejected"]
    assert result.progress.validation_loss == last["validation_loss"] < 0.3


def test_orpo_learns_the_better_answer_and_leaves_the_worse(place: Place) -> None:
    _, events = place.train("orpo", _held_out(make_pairs(46), 6))
    first, last = _of(events, "train.eval")[0], _of(events, "train.eval")[-1]
    assert last["nll"] < first["nll"]
    assert last["odds_ratio_loss"] < first["odds_ratio_loss"]
    assert last["accuracy"] == 1.0


@pytest.mark.parametrize("examples", [make_pairs(36), make_verdicts(48)], ids=["pairs", "verdicts"])
def test_kto_learns_what_is_good_and_what_is_bad(place: Place, examples: list[Example]) -> None:
    _, events = place.train("kto", _held_out(examples, 12))
    first, last = _of(events, "train.step")[0], _of(events, "train.eval")[-1]
    assert first["loss"] == pytest.approx(0.5, rel=1e-3)
    assert last["validation_loss"] < 0.3
    assert last["margin"] > 1.0


def test_kto_without_a_reference_point_lays_out_no_foreign_answers(place: Place) -> None:
    _, with_point = place.train("kto", make_verdicts(16), name="point", steps=1)
    _, without = place.train("kto", name="none", steps=1, loss="apo_zero_unpaired")
    first, bare = _of(with_point, "train.step")[0], _of(without, "train.step")[0]
    assert bare["tokens"] < first["tokens"]
    assert bare["kl"] == 0


def test_dpo_goes_on_from_an_adapter_and_measures_against_it(place: Place) -> None:
    pairs = make_pairs(30)
    chats = [replace(one, messages=[*one.messages, *one.chosen], chosen=[], rejected=[]) for one in pairs]
    place.train("sft", chats, name="tuned", epochs=2)
    _, events = place.train("dpo", pairs, name="preferring", start="tuned", epochs=2)
    first = _of(events, "train.step")[0]
    assert first["loss"] == pytest.approx(log(2), rel=1e-3)  # against the adapter as it was, not the bare base
    assert place.digest("preferring") != place.digest("tuned")
    _, bare = place.train("dpo", name="bare", epochs=2)
    assert _of(bare, "train.step")[-1]["margin"] != _of(events, "train.step")[-1]["margin"]


def test_a_kept_reference_gives_the_bytes_of_a_computed_one(place: Place) -> None:
    place.train("dpo", make_pairs(24), name="first", threads=1)
    _, events = place.train("dpo", name="second", threads=3)
    assert not _of(events, "train.reference")
    assert place.digest("second") == place.digest("first")


def test_the_audit_counts_pairs_that_say_nothing(place: Place) -> None:
    pairs = make_pairs(20)
    same = replace(pairs[0], id="same", rejected=pairs[0].chosen)
    blank = replace(pairs[1], id="blank", rejected=[Message("assistant", "")])
    long = replace(pairs[2], id="long", messages=[Message("user", "much " * 200)])
    _, events = place.train("dpo", [*pairs, same, blank, long], epochs=1)
    (audit,) = _of(events, "train.audit")
    assert (audit["examples"], audit["dropped"]) == (20, 3)
    assert sorted(audit["drops"]) == [
        "chosen and rejected are the same",
        "cut off before its answer",
        "every answer is empty",
    ]
    assert "[chosen]" in audit["sample"] and "[rejected]" in audit["sample"]


def test_chats_are_no_pairs(place: Place) -> None:
    chats = [replace(one, messages=[*one.messages, *one.chosen], chosen=[], rejected=[]) for one in make_pairs(8)]
    with pytest.raises(InvalidInput, match="no preference pair"):
        place.train("dpo", chats)


def test_a_long_pair_may_stop_the_run(place: Place) -> None:
    with pytest.raises(InvalidInput, match=r"longer than the context of 24 tokens.*pair-"):
        place.train("dpo", make_pairs(8), overlong="refuse", context_tokens=24)


@pytest.mark.parametrize(
    ("spec", "fields", "said"),
    [
        (DpoSpec, {"loss": "hinge", "label_smoothing": 0.1}, "hinge knows none"),
        (DpoSpec, {"loss": "exo_pair"}, "needs some"),
        (DpoSpec, {"overlong": "split"}, "truncate"),
        (OrpoSpec, {"reference": "builtin:seedling"}, "reference"),
    ],
)
def test_what_a_loss_does_not_know_is_refused(spec: type[DpoSpec], fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(**fields)


@pytest.mark.parametrize(
    ("fields", "counts", "said"),
    [
        ({}, (40, 40), ""),
        ({}, (40, 31), ""),
        ({}, (60, 20), "undesirable_weight: 3"),
        ({}, (20, 60), "desirable_weight: 3"),
        ({"undesirable_weight": 3.0}, (60, 20), ""),
        ({}, (60, 0), "all 60 answers are called good"),
    ],
)
def test_kto_says_when_good_and_bad_answers_are_out_of_balance(
    fields: dict[str, Any], counts: tuple[int, int], said: str
) -> None:
    found = find_imbalance(KtoSpec(**fields), *counts)
    assert said in found
    assert bool(found) == bool(said)
