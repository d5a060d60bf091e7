"""The error tree: one class for each thing a user can cause, the same over every face."""

from __future__ import annotations

import pickle

import pytest

from espalier.core import errors


@pytest.mark.parametrize("kind", errors.kinds().values(), ids=lambda kind: kind.__name__)
def test_an_error_survives_a_wire_with_its_class_and_its_words(kind: type[errors.EspalierError]) -> None:
    sent = kind("no model support@v9", hint="espalier models list", where="recipe.yaml:3:7", retry_after_s=2.5)
    for received in (errors.from_json(sent.to_json()), pickle.loads(pickle.dumps(sent))):
        assert type(received) is kind
        assert str(received) == "recipe.yaml:3:7: no model support@v9\n  next: espalier models list"
        assert received.retry_after_s == 2.5


def test_every_error_has_a_code_of_its_own_and_a_nonzero_exit() -> None:
    tree = errors.kinds()
    assert len(tree) == len({kind.__name__ for kind in tree.values()}) >= 15
    assert all(kind.exit_code > 0 and 400 <= kind.http_status < 600 for kind in tree.values())


def test_every_error_is_drawn_in_the_tree_at_the_top_of_its_file() -> None:
    for kind in errors.kinds().values():
        line = next(line for line in (errors.__doc__ or "").split("\n") if f"{kind.__name__} " in line)
        assert f"({kind.http_status}, exit {kind.exit_code}" in line


def test_an_unknown_code_becomes_the_base_error() -> None:
    assert type(errors.from_json({"code": "from_the_future", "message": "x"})) is errors.EspalierError


def test_a_near_miss_is_suggested_and_a_far_one_lists_what_is_allowed() -> None:
    assert errors.did_you_mean("rnak", ["rank", "alpha"]) == "did you mean `rank`?"
    assert errors.did_you_mean("zzz", ["rank", "alpha"]) == "allowed: alpha, rank"
