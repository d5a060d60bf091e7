"""A miss is explained by what changed, in words a user can act on."""

from __future__ import annotations

from typing import Any

import pytest

from espalier.pipeline.explain import explain_hit, explain_miss
from espalier.pipeline.key import Ingredients

BASE: dict[str, Any] = {
    "step": "train.sft@1",
    "python": "3.11",
    "code": {"espalier.train.loop": "aa", "espalier.core.ids": "bb"},
    "packages": {"torch": "2.13.0"},
    "spec": {"lr": 1e-4, "lora": {"rank": 8, "targets": ["q", "v"]}},
    "inputs": {"dataset": "ab12" * 16},
    "env": {"MODE": "x"},
    "files": {"texts/a.txt": "00"},
    "lock": "",
    "seed": 0,
}


def why(**changes: Any) -> str:
    return explain_miss(Ingredients.model_validate({**BASE, **changes}), Ingredients.model_validate(BASE))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spec": {"lr": 2e-4, "lora": BASE["spec"]["lora"]}}, "miss: lr changed 0.0001 -> 0.0002"),
        ({"spec": {"lr": 1e-4, "lora": {"rank": 16, "targets": ["q", "v"]}}}, "miss: lora.rank changed 8 -> 16"),
        ({"spec": {**BASE["spec"], "epochs": 3}}, "miss: epochs = 3 is new"),
        ({"spec": {"lora": BASE["spec"]["lora"]}}, "miss: lr is gone"),
        ({"inputs": {"dataset": "cd34" * 16}}, "miss: inputs.dataset changed ab12ab12 -> cd34cd34"),
        ({"code": {**BASE["code"], "espalier.train.loop": "cc"}}, "miss: code changed: espalier.train.loop"),
        ({"code": {**BASE["code"], "espalier.new": "cc"}}, "miss: code changed: espalier.new"),
        ({"packages": {"torch": "2.14.0"}}, "miss: package torch changed 2.13.0 -> 2.14.0"),
        ({"env": {"MODE": "y"}}, "miss: environment variable MODE changed"),
        ({"files": {}}, "miss: file gone: texts/a.txt"),
        ({"python": "3.12"}, "miss: python 3.11 -> 3.12"),
        ({"lock": "x"}, "miss: lock file changed"),
        ({"step": "train.sft@2"}, "miss: step train.sft@1 -> train.sft@2"),
        ({}, "miss: nothing changed, but the result is not there any more"),
    ],
)
def test_each_kind_of_change_has_its_sentence(changes: dict[str, Any], reason: str) -> None:
    assert why(**changes) == reason


def test_a_change_within_a_list_of_steps_names_the_step_and_its_key() -> None:
    def compare(*, before: list[Any], now: list[Any]) -> str:
        old, new = ({**BASE, "spec": {"steps": steps}} for steps in (before, now))
        return explain_miss(Ingredients.model_validate(new), Ingredients.model_validate(old))

    length = {"step": "length", "min_chars": 20}
    twice = [{"step": "redact", "mode": "mask"}, {"step": "redact", "mode": "drop"}]
    said = compare(before=[length, *twice], now=[{**length, "min_chars": 25}, *twice])
    assert said == "miss: steps.length.min_chars changed 20 -> 25"
    said = compare(before=twice, now=[twice[0], {"step": "redact", "mode": "flag"}])
    assert said == "miss: steps.1.redact.mode changed drop -> flag"
    assert compare(before=[length], now=[*twice]) == "miss: steps changed length -> redact, redact"


def test_many_changes_are_counted_and_the_users_own_come_first() -> None:
    said = why(spec={"lr": 2e-4, "lora": {"rank": 9, "targets": []}}, seed=1, python="3.12", lock="x")
    assert said.startswith("miss: lora.rank changed 8 -> 9; lora.targets changed ['q', 'v'] -> []; lr changed")
    assert said.endswith("; and 3 more")


def test_a_long_value_is_cut() -> None:
    assert len(why(spec={**BASE["spec"], "text": "x" * 500})) < 100


def test_a_step_that_never_ran_and_a_hit_say_so() -> None:
    assert explain_miss(Ingredients.model_validate(BASE), None) == "miss: never run"
    assert explain_hit("run_x") == "hit: same inputs as run_x"


def test_every_ingredient_is_in_the_key() -> None:
    base = Ingredients.model_validate(BASE)
    others: dict[str, Any] = {
        "step": "s@2",
        "python": "3.12",
        "code": {},
        "packages": {},
        "spec": {},
        "inputs": {},
        "env": {},
        "files": {},
        "lock": "x",
        "seed": 1,
    }
    assert set(others) == set(Ingredients.model_fields)
    keys = {Ingredients.model_validate({**BASE, name: value}).key() for name, value in others.items()}
    assert len(keys) == len(others)
    assert base.key() not in keys
