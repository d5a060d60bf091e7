"""YAML files as types: every error has a line, and unknown keys a suggestion, at any depth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.recipefile import load_recipe
from espalier.core.types import Spec


class Lora(Spec):
    rank: int = Field(8, ge=1)


class Step(Spec):
    lora: Lora | None = None
    names: tuple[str, ...] = ()


class Clean(Spec):
    kind: Literal["clean"] = "clean"
    form: str = ""


class Split(Spec):
    kind: Literal["split"] = "split"
    test: float = Field(0.1, lt=1)


class Recipe(Spec):
    steps: dict[str, Step]
    extra: list[Lora] = []
    chain: tuple[Annotated[Clean | Split, Field(discriminator="kind")], ...] = ()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_good_file_is_read_into_plain_values(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "steps:\n  a:\n    lora: {rank: 4}\n    names: [x, 'y']\n"), Recipe)
    assert recipe.steps["a"] == Step(lora=Lora(rank=4), names=("x", "y"))
    assert type(recipe.steps["a"].names[0]) is str


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("steps:\n  a:\n    lora:\n      rnak: 4\n", "4:7", "steps.a.lora.rnak: unknown key", "did you mean `rank`?"),
        ("steps:\n  a: {lora: {rank: 0}}\n", "2:14", "steps.a.lora.rank: must be at least 1 (got 0)", ""),
        ("extra:\n  - rank: 1\n  - rank: x\n", "1:1", "steps: missing", ""),
        ("steps: {}\nextra:\n  - rank: 1\n  - alpha: x\n", "4:5", "extra.1.alpha: unknown key", "allowed: rank"),
        ("steps: {}\nchain:\n- {kind: split,\n   tset: 1}\n", "4:4", "split.tset: unknown key", "did you mean `test`?"),
        ("steps: {}\nchain:\n- {kind: split, test: 2}\n", "3:17", "less than 1 (got 2)", ""),
        ("steps: {}\nchain:\n- {kind: splt}\n", "3:3", "there is no kind 'splt'", "did you mean `split`?"),
        ("steps: {}\nchain:\n- {test: 0}\n", "3:3", "chain.0.kind: missing", ""),
    ],
)
def test_an_error_names_line_column_field_and_next_step(
    tmp_path: Path, text: str, place: str, message: str, hint: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidInput) as caught:
        load_recipe(path, Recipe)
    assert caught.value.where == f"{path}:{place}"
    assert message in caught.value.message
    assert caught.value.hint == hint


def test_all_errors_are_listed_not_only_the_first(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"(?s)steps\.a\.x: unknown key.*:3:7: steps\.b\.y: unknown key"):
        load_recipe(write(tmp_path, "steps:\n  a: {x: 1}\n  b: {y: 1}\n"), Recipe)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        load_recipe(tmp_path / "none.yaml", Recipe)
