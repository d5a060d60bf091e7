"""Adapters as every face handles them: imported, shown, combined, merged; with lineage, and nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from tests.unit.nn.adapterwork import stir

from espalier.core.errors import Conflict, EspalierError, InvalidInput, NotFound
from espalier.nn.adapterfiles import read_stored
from espalier.nn.adapters import attach_adapters, save_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.nn.merging import merge_layer
from espalier.pipeline import run
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.services.adapters import (
    CombineAdapters,
    ImportAdapter,
    MergeAdapter,
    ShowAdapter,
    combine,
    import_,
    merge,
    show,
)
from espalier.services.context import Context, open_context
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    folder = tmp_path_factory.mktemp("workspace")
    init_workspace(folder)
    make_tiny_base(folder / "base")
    for seed in (1, 2):
        base = load_base(f"path:{folder / 'base'}")
        adapters = attach_adapters(base.model, LoraSpec(rank=seed + 1, targets=("q_proj",)), seed=seed)
        stir(adapters.parameters(), seed=seed)
        save_adapter(folder / f"a{seed}", adapters, base)
        (folder / f"a{seed}" / "espalier.json").unlink()  # as a stranger's
    opened = open_context(folder, actor="ada")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "LocalExecutor", InlineExecutor)  # a child process each would import torch each
        yield opened
    opened.close()


@pytest.fixture(scope="module")
def imported(context: Context) -> list[str]:
    """Digests of both, brought in."""
    done = [import_(context, ImportAdapter(source=f"a{seed}", base="path:base")) for seed in (1, 2)]
    return [each.outputs["import.adapter"] for each in done]


def test_an_import_is_an_artifact_that_says_where_it_came_from(context: Context, imported: list[str]) -> None:
    sheet = show(context, ShowAdapter(adapter=f"sha256:{imported[0]}"))
    assert (sheet.kind, sheet.rank, sheet.layers, sheet.targets) == ("LoRA", 2, 2, ("q_proj",))
    assert sheet.parameters == 2 * (2 * 48 + 48 * 2)
    assert sheet.base_digest == load_base(f"path:{context.start / 'base'}").base_digest
    assert "imported from a1 (peft)" in sheet.to_text()
    assert "unknown" in show(context, ShowAdapter(adapter="a1")).origin
    again = import_(context, ImportAdapter(source="a1", base="path:base"))
    assert again.outputs["import.adapter"] == imported[0]
    assert show(context, ShowAdapter(adapter=again.id)) == sheet


def test_adapters_are_combined_and_merged_with_their_lineage(context: Context, imported: list[str]) -> None:
    references = tuple(f"sha256:{digest}" for digest in imported)
    made = combine(context, CombineAdapters(adapters=references, weight=(1.0, -0.5))).outputs["combine.adapter"]
    assert {edge.parent for edge in context.store.artifacts.parents(made)} >= set(imported)
    assert "combined of 2 adapters by cat" in show(context, ShowAdapter(adapter=f"sha256:{made}")).to_text()

    done = merge(context, MergeAdapter(adapter=f"sha256:{made}", out="merged"))
    digest = done.outputs["merge.base"]
    assert context.store.artifacts.get(digest).kind == "base"
    assert made in {edge.parent for edge in context.store.artifacts.parents(digest)}
    base, merged = (load_base(f"path:{context.start / name}") for name in ("base", "merged"))
    parts = [read_stored(context.store.artifacts.materialise(part), base).layers for part in imported]
    for name in parts[0]:
        expected = base.model.get_submodule(name).weight
        expected = merge_layer(expected, parts[0][name]) - 0.5 * parts[1][name].delta
        torch.testing.assert_close(merged.model.get_submodule(name).weight, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InvalidInput, match="made no adapter"):
        show(context, ShowAdapter(adapter=done.id))
    with pytest.raises(Conflict, match="exists"):
        merge(context, MergeAdapter(adapter=f"sha256:{made}", out="merged"))


def test_what_is_no_adapter_is_refused_in_a_sentence(context: Context, imported: list[str]) -> None:
    with pytest.raises(InvalidInput, match="is a folder, not an adapter") as caught:
        merge(context, MergeAdapter(adapter="a1"))
    assert "espalier adapter import a1" in caught.value.hint
    with pytest.raises(NotFound):
        show(context, ShowAdapter(adapter="nobody@v1"))
    with pytest.raises(NotFound, match="adapter_config"):
        show(context, ShowAdapter(adapter="base"))
    with pytest.raises(InvalidInput, match="3 weights for 2"):
        combine(context, CombineAdapters(adapters=("a", "b"), weight=(1.0, 2.0, 3.0)))
    text = context.start / "text"
    text.mkdir()
    (text / "x").write_text("x")
    digest = context.store.artifacts.put("prompt", text).digest
    with pytest.raises(InvalidInput, match="is a prompt, not an adapter"):
        show(context, ShowAdapter(adapter=f"sha256:{digest}"))


def test_a_refused_import_leaves_nothing(context: Context) -> None:
    broken = context.start / "broken"
    broken.mkdir()
    for path in (context.start / "a1").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    config = json.loads((broken / "adapter_config.json").read_text())
    (broken / "adapter_config.json").write_text(json.dumps(config | {"r": 9}))
    with pytest.raises(EspalierError, match="has rank 2"):
        import_(context, ImportAdapter(source="broken", base="path:base"))
