"""A quantised base from its making to its serving: measured, held to its gate, registered, asked; or kept from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from espalier.core.config import ServeConfig
from espalier.core.errors import DigestMismatch, EspalierError, GateFailed
from espalier.core.refs import Ref
from espalier.core.types import Message, SamplingSpec
from espalier.nn.adapters import attach_adapters, save_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.pipeline import run
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.registry.versions import Registration, register
from espalier.serve.engine import Engine
from espalier.services.bases import place_base
from espalier.services.context import Context, open_context
from espalier.services.datasets import BuildDataset, build
from espalier.services.execution import execute_step
from espalier.services.models import DecideModel, NameModel, approve, show
from espalier.services.quantising import QuantiseModel, quantise
from espalier.services.resolver import RegistryResolver
from espalier.services.steps.eval_fidelity import EvalFidelitySpec
from espalier.services.steps.model_quantise import ModelQuantiseSpec
from espalier.store.workspace import init_workspace
from espalier.testing.families import make_family

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
RECIPE = """
name: codes
source: {path: ., include: [codes.jsonl]}
task: {kind: completion, prompt: q, completion: a}
split: {test: 0.4, validation: 0.1, near: 1}
leaks: {near: 1}
"""
LOOSE = ("perplexity_ratio <= 2", "agreement >= 0.5", "divergence <= 1")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    folder = tmp_path_factory.mktemp("workspace")
    init_workspace(folder)
    make_family("llama-3", folder / "base")
    rows = [{"q": f"Give the code. The code is {n:03d}.", "a": f"<code>{n:03d}</code>"} for n in range(150)]
    (folder / "codes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "codes.yaml").write_text(RECIPE)
    opened = open_context(folder, actor="ada")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "LocalExecutor", InlineExecutor)  # a child process each would import torch each
        build(opened, BuildDataset(recipe="codes.yaml"))
        yield opened
    opened.close()


@pytest.fixture(scope="module")
def passed(context: Context) -> dict[str, str]:
    """What the operation made: `quantised.base`, `fidelity.report`, `gate.verdict`."""
    request = QuantiseModel(base="path:base", dataset="codes", name="small", conditions=LOOSE)
    return quantise(context, request).outputs


def test_what_passes_is_registered_with_its_evidence_and_answers(context: Context, passed: dict[str, str]) -> None:
    base = passed["quantised.base"]
    view = show(context, NameModel(ref="small@v1"))
    assert (view.version.base, view.version.reports) == (f"artifact:{base}", (passed["fidelity.report"],))
    report = view.reports[0]
    assert {score.name for score in report.scores} == {"perplexity_ratio", "agreement", "divergence"}
    assert all(score.n > 5 and score.ci_low <= score.value <= score.ci_high for score in report.scores)
    assert report.score("agreement").value > 0.9
    assert 0 < report.score("divergence").value < 0.1
    clauses = {clause.name: clause.ok for clause in view.clauses}
    assert clauses["held_out_report"] and clauses["dataset"]

    approve(open_as(context, "grace"), DecideModel(ref="small@v1"))
    target = RegistryResolver(context.store, ServeConfig()).find_version(Ref.parse("small@v1", kind="model"))
    loaded = load_base(place_base(context.store, target.base))
    question = [Message("user", "The code is 007.")]
    ids = torch.tensor([loaded.tokenizer.encode_prompt(question)])
    with torch.inference_mode():
        alone = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    engine = Engine(loaded, ServeConfig(max_batch=2, max_context_tokens=200))
    (answer,) = engine.generate([question], SamplingSpec(max_tokens=8))
    assert list(answer.token_ids) == alone[0, ids.shape[1] :].tolist()


def test_an_adapter_trained_on_the_quantised_base_is_registered_and_one_of_the_original_is_not(
    context: Context, passed: dict[str, str], tmp_path: Path
) -> None:
    name = f"artifact:{passed['quantised.base']}"
    placed = place_base(context.store, name)
    for place, ok in ((placed, True), (f"path:{context.start / 'base'}", False)):
        base = load_base(place)
        folder = tmp_path / str(ok)
        save_adapter(folder, attach_adapters(base.model, LoraSpec(rank=2), seed=0), base)
        artifact = context.store.artifacts.put("adapter", folder)
        registration = Registration(
            name="tuned", base=name, base_digest=load_base(placed).base_digest, adapter=artifact.digest
        )
        if ok:
            version = register(context.store, registration, actor="ada")
            assert version.adapter == artifact.digest
        else:
            with pytest.raises(DigestMismatch):
                register(context.store, registration, actor="ada")
    engine = Engine(load_base(placed), ServeConfig(max_batch=2, max_context_tokens=200))
    engine.load_adapter("own", tmp_path / "True")
    with pytest.raises(DigestMismatch):
        engine.load_adapter("originals", tmp_path / "False")


def test_what_fails_its_gate_is_kept_with_its_report_and_neither_registered_nor_served(context: Context) -> None:
    request = QuantiseModel(
        base="path:base", dataset="codes", scheme="nf4", name="tiny", conditions=("divergence <= 0.000001",)
    )
    with pytest.raises(GateFailed, match="divergence"):
        quantise(context, request)
    with pytest.raises(EspalierError):
        show(context, NameModel(ref="tiny@v1"))
    made, report = make_unfit(context)
    digest = load_base(place_base(context.store, f"artifact:{made}")).base_digest
    for given in ((), (report,)):
        with pytest.raises(GateFailed, match="passed its gate") as caught:
            register(
                context.store,
                Registration(name="tiny", base=f"artifact:{made}", base_digest=digest, reports=given),
                actor="ada",
            )
        assert "models quantise" in caught.value.hint
    resolver = RegistryResolver(context.store, ServeConfig())
    for base in (f"artifact:{made}", place_base(context.store, f"artifact:{made}")):
        with pytest.raises(GateFailed):
            resolver._target("tiny", base, "")


def test_the_report_of_one_quantised_base_opens_no_way_for_another(context: Context, passed: dict[str, str]) -> None:
    made, _ = make_unfit(context)
    with pytest.raises(GateFailed):
        register(
            context.store,
            Registration(
                name="tiny",
                base=f"artifact:{made}",
                base_digest=load_base(place_base(context.store, f"artifact:{made}")).base_digest,
                reports=(passed["fidelity.report"],),
            ),
            actor="ada",
        )


def test_it_is_compared_with_the_original_it_was_made_from_and_no_other(
    context: Context, passed: dict[str, str]
) -> None:
    make_family("llama-3", context.start / "other", seed=5)
    inputs = {"base": f"sha256:{passed['quantised.base']}", "dataset": "dataset:codes"}
    with pytest.raises(DigestMismatch, match="made from path:"):
        execute_step(
            context,
            "eval.fidelity",
            EvalFidelitySpec(original="path:other"),
            name="",
            folder=context.start,
            inputs=inputs,
        )


def make_unfit(context: Context) -> tuple[str, str]:
    """A quantised base, and the report that it did not pass."""
    spec = ModelQuantiseSpec(base="path:base", scheme="nf4")
    made = execute_step(context, "model.quantise", spec, name="", folder=context.start).outputs["quantise.base"]
    held = EvalFidelitySpec(original="path:base", conditions=("divergence <= 0.000001",))
    inputs = {"base": f"sha256:{made}", "dataset": "dataset:codes"}
    done = execute_step(context, "eval.fidelity", held, name="", folder=context.start, inputs=inputs)
    return made, done.outputs["fidelity.report"]


def open_as(context: Context, actor: str) -> Context:
    return open_context(context.start, actor=actor)
