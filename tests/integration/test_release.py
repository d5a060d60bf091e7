"""A release as the stages make it together: prompt, evaluations, gate, version, approval, alias; and its lineage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from espalier.core.config import PolicyConfig
from espalier.core.errors import GateFailed
from espalier.core.types import Example, Generation, Message, SamplingSpec, Usage
from espalier.evals.cases import Evaluation, read_evaluation, write_evaluation
from espalier.evals.compare import compare
from espalier.evals.gate import judge, require
from espalier.evals.run import Subject, draw_examples, evaluate
from espalier.metrics.xml import xml_fields
from espalier.prompts.catalog import save_prompt, write_prompt
from espalier.prompts.template import make_prompt, render_case
from espalier.registry.aliases import promote
from espalier.registry.approvals import approve
from espalier.registry.card import make_card
from espalier.registry.lineage import trace_down, trace_model
from espalier.registry.versions import Registration, register
from espalier.store.examples import read_examples, write_examples
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace

BASE = "5" * 64
PROMPT = make_prompt("support", "Record: {{ input }}", "You answer in XML.")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path / "workspace"))
    yield opened
    opened.close()


def make_dataset(store: Store, folder: Path) -> str:
    for split, numbers in (("train", range(40)), ("test", range(40, 80))):
        rows = [
            Example(
                id=f"e{i}", split=split, documents=[f"d{i}"],
                messages=[Message("user", f"ticket {i}"), Message("assistant", f'<t id="{i}"><n>{i}</n></t>')],
            )
            for i in numbers
        ]  # fmt: skip
        write_examples(folder / "data" / f"{split}-00000.parquet", rows)
    (folder / "manifest.json").write_text(json.dumps({"examples": 80, "splits": {"train": 40, "test": 40}}))
    return store.artifacts.put("dataset", folder).digest


def tuned(batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
    """Answers rightly what asks through the prompt, but for every tenth ticket."""
    return [_answer(messages[-1].content.removeprefix("Record: ticket ")) for messages in batch]


def _answer(number: str) -> Generation:
    body = f'<t id="{number}"><n>{"?" if number.endswith("0") else number}</n></t>'
    return Generation(text=body, finish_reason="stop", usage=Usage(prompt_tokens=9, completion_tokens=9))


def babble(batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
    return [Generation(text="hm", finish_reason="stop", usage=Usage(prompt_tokens=9, completion_tokens=1))] * len(batch)


def test_a_model_goes_from_prompt_to_production_and_is_traced_both_ways(store: Store, tmp_path: Path) -> None:
    dataset = make_dataset(store, tmp_path / "dataset")
    prompt = save_prompt(store, PROMPT, actor="ann")
    write_prompt(tmp_path / "prompt", prompt)
    prompt_digest = store.artifacts.put("prompt", tmp_path / "prompt").digest
    facts = tmp_path / "adapter" / "espalier.json"
    facts.parent.mkdir()
    facts.write_text(json.dumps({"base": "builtin:seedling", "base_digest": BASE}))
    adapter = store.artifacts.put("adapter", facts.parent).digest
    store.artifacts.link(adapter, dataset, "dataset")

    def score(label: str, subject: str, model: object, shots: int) -> tuple[Evaluation, str]:
        data = store.artifacts.materialise(dataset)
        found = evaluate(
            read_examples(data, "test"), model, [xml_fields()],  # type: ignore[arg-type]
            Subject(subject, label, dataset, prompt=prompt_digest),
            render=lambda row, shown: render_case(prompt, row, shown),
            shots=draw_examples(read_examples(data, "train"), shots, seed=1),
        )  # fmt: skip
        write_evaluation(tmp_path / label, found)
        digest = store.artifacts.put("report", tmp_path / label).digest
        store.artifacts.link(digest, dataset, "dataset")
        return read_evaluation(store.artifacts.materialise(digest)), digest

    before, before_digest = score("base", "builtin:seedling", babble, 3)
    after, after_digest = score("tuned", f"adapter:{adapter}", tuned, 0)
    change = compare([before, after]).row("xml_fields").cells[1].change
    assert change is not None and change.is_better and change.value == pytest.approx(0.95)
    require(judge(["xml_fields - baseline >= 0.8", "xml_fields.ci_low >= 0.85"], after, before))
    with pytest.raises(GateFailed):
        require(judge(["xml_fields.ci_low >= 0.95"], after, before))

    parts = Registration(
        name="support", base="builtin:seedling", base_digest=BASE, adapter=adapter, prompt=prompt_digest,
        dataset=dataset, reports=(before_digest, after_digest),
    )  # fmt: skip
    version = register(store, parts, actor="ann")
    approve(store, PolicyConfig(), version.ref, actor="bob")
    promote(store, version.ref, "production", actor="bob")

    assert trace_model(store, "support@production").find("dataset")[0].id == dataset
    assert {node.id for node in trace_down(store, dataset).find("model")} == {version.ref}
    assert "| tuned | test | xml_fields | 95 % [" in make_card(store, version.ref)
    actions = [event.action for event in reversed(store.audit.list())]
    assert actions == ["prompts.save", "models.register", "models.approve", "models.promote"]
    store.audit.verify()
