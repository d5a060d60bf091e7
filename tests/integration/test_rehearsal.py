"""A training rehearsed through its operations: audit, estimate and range test of a recipe; nothing recorded or left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Example, Message
from espalier.services.catalogue import publish_dataset
from espalier.services.context import Context, open_context
from espalier.services.rehearsal import EstimateTraining, RateTest, audit, estimate, lr_range
from espalier.services.tuning import TuneModel
from espalier.store.examples import write_examples
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    folder = tmp_path_factory.mktemp("workspace")
    init_workspace(folder)
    make_tiny_base(folder / "base", seed=1)
    (folder / "recipe.yaml").write_text("base: path:base\npack_tokens: 128\nlora: {rank: 2}\nusd_per_hour: 3\n")
    (folder / "mixed.yaml").write_text("base: path:base\nmix: {general: 0.5}\n")
    opened = open_context(folder, actor="ada")
    chats = [
        Example(f"c{n}", [Message("user", f"The code is {n:03d}."), Message("assistant", f"<code>{n:03d}</code>")])
        for n in range(40)
    ]
    _publish(opened, folder / "codes", [*chats, Example("open", [Message("user", "Hi")])], "codes")
    texts = [Example(f"t{n}", text="the quick brown fox " * 5) for n in range(9)]
    _publish(opened, folder / "general", texts, "general")
    yield opened
    opened.close()


def _publish(context: Context, folder: Path, examples: list[Example], name: str) -> None:
    write_examples(folder / "data" / "train-00000.parquet", examples)
    artifact = context.store.artifacts.put("dataset", folder, {"name": name})
    publish_dataset(context.store, artifact, name, "ada")


def test_an_audit_counts_what_is_learnt_and_warns_of_what_is_not(context: Context) -> None:
    found = audit(context, TuneModel(recipe="recipe.yaml", dataset="codes"))
    assert (found.audit["examples"], found.audit["dropped"]) == (40, 1)
    assert any("nothing is answered (open)" in line for line in found.warnings)
    assert "⟦<code>000</code><|im_end|>⟧" in found.to_text()


def test_a_mix_is_audited_dataset_by_dataset(context: Context) -> None:
    found = audit(context, TuneModel(recipe="mixed.yaml", dataset="codes", mix=("general=general",)))
    assert [(part["name"], part["share"]) for part in found.audit["parts"]] == [("", 1.0), ("general", 0.5)]
    with pytest.raises(InvalidInput, match="'general' of the mix is given no dataset"):
        audit(context, TuneModel(recipe="mixed.yaml", dataset="codes"))


def test_an_estimate_tells_memory_time_and_cost(context: Context) -> None:
    found = estimate(context, EstimateTraining(recipe="recipe.yaml", dataset="codes", tokens_per_s=100.0))
    assert found.fits and found.trained_parameters < found.total_parameters
    assert found.wall_s == pytest.approx(found.tokens / 100)
    assert found.cost_usd == pytest.approx(found.wall_s / 1200)
    assert "it fits" in found.to_text()


def test_a_range_test_suggests_a_rate_and_a_missing_dataset_is_named(context: Context) -> None:
    asked = {"recipe": "recipe.yaml", "lowest": 1e-3, "highest": 1.0, "steps": 20}
    found = lr_range(context, RateTest(dataset="codes", **asked))
    assert 1e-3 <= found.suggested_lr <= found.lowest_lr < 1.0
    assert f"lr: {found.suggested_lr:.1e}" in found.to_text()
    with pytest.raises(NotFound, match="cods"):
        lr_range(context, RateTest(dataset="cods", **asked))


def test_nothing_is_recorded_as_a_run(context: Context) -> None:
    assert not list(context.store.runs.list())
